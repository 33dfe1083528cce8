package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/qi-realtime/ws"
)

const (
	presenceInterval = 200 * time.Millisecond
	// absence is the time after which a name without a connection has left. A page that loses its
	// connection is back sooner, in general, and nobody is told.
	absence = 4 * time.Second
	// maxNames bounds the names in a message. Pages show the others as a number.
	maxNames = 100
)

// Presence says who is in a room. An answer to chat.who has Names. An event has the names that
// have joined and left since the version before, or Names if these are too many. A page that
// misses a version asks with chat.who.
type Presence struct {
	Room    string `json:"room"`
	Version int    `json:"version"`
	// Count is the number of names that are in the room. A person with several tabs is one.
	Count int `json:"count"`
	// Names are the names in alphabetical order, but 100 at most.
	Names  []string `json:"names,omitempty"`
	Joined []string `json:"joined,omitempty"`
	Left   []string `json:"left,omitempty"`
}

// presence knows the names in each room, and announces changes. Events of the manager only mark a
// room as changed; the names come from the members that the room has at the next step, so that no
// order of events can make them wrong. However many join at once, a room gets one announcement in a
// step, with a bounded number of names. Safe for concurrent use.
type presence struct {
	m        *ws.Manager
	announce func(*Presence)
	dropped  int64 // events that the bus had dropped before the last step; for run alone

	mu      sync.Mutex
	changed map[string]struct{}    // rooms to look at in the next step; guarded by mu
	rooms   map[string]*attendance // guarded by mu
}

// attendance holds the names of one room. presence.mu guards it.
type attendance struct {
	version int
	names   map[string]time.Time // with the time since which the name has no connection, zero for one that has
	first   []string             // the first names in alphabetical order; nil after a change
}

func newPresence(m *ws.Manager, announce func(*Presence)) *presence {
	p := &presence{
		m: m, announce: announce,
		changed: make(map[string]struct{}), rooms: make(map[string]*attendance),
	}
	for _, event := range []ws.EventType{ws.EventRoomJoined, ws.EventRoomLeft} {
		m.Subscribe(event, func(e ws.Event) { p.mark(e.Data.(string)) })
	}
	return p
}

// run announces changes until ctx ends.
func (p *presence) run(ctx context.Context) {
	tick := time.NewTicker(presenceInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.step(now)
		}
	}
}

// mark makes the next step look at a room.
func (p *presence) mark(room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed[room] = struct{}{}
}

// step looks at the rooms that have changed, and announces their changes.
func (p *presence) step(now time.Time) {
	if n := p.m.EventBus.GetDroppedEventCount(); n != p.dropped { // any room may have changed
		p.dropped = n
		p.m.RangeRooms(func(r *ws.Room) bool {
			p.mark(r.ID())
			return true
		})
	}
	p.mu.Lock()
	rooms := p.changed
	p.changed = make(map[string]struct{})
	p.mu.Unlock()
	for room := range rooms {
		if change := p.update(room, now); change != nil {
			p.announce(change)
		}
	}
}

// update compares the names of the room with its members, and returns the change, or nil.
func (p *presence) update(room string, now time.Time) *Presence {
	present := make(map[string]time.Time) // of the zero time: they have a connection
	for _, client := range p.m.GetRoomMembers(room) {
		present[nameOf(client)] = time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.rooms[room]
	if a == nil {
		a = &attendance{names: make(map[string]time.Time)}
		p.rooms[room] = a
	}
	joined, left, waiting := a.follow(present, now)
	if waiting {
		p.changed[room] = struct{}{}
	}
	if len(a.names) == 0 {
		delete(p.rooms, room)
	}
	if len(joined)+len(left) == 0 {
		return nil
	}
	a.version++
	a.first = nil
	change := &Presence{Room: room, Version: a.version, Count: len(a.names), Joined: joined, Left: left}
	if len(joined)+len(left) > maxNames {
		change.Joined, change.Left, change.Names = nil, nil, a.firstNames()
	}
	return change
}

// follow brings the names up to date. It returns those that have joined and left, and whether a
// name waits for the end of its absence.
func (a *attendance) follow(present map[string]time.Time, now time.Time) (joined, left []string, waiting bool) {
	for name, since := range a.names {
		_, here := present[name]
		switch {
		case here:
		case since.IsZero():
			a.names[name], waiting = now, true
		case now.Sub(since) < absence:
			waiting = true
		default:
			delete(a.names, name)
			left = append(left, name)
		}
	}
	for name := range present {
		if _, known := a.names[name]; !known {
			joined = append(joined, name)
		}
	}
	maps.Copy(a.names, present)
	slices.SortFunc(joined, alphabetical)
	slices.SortFunc(left, alphabetical)
	return joined, left, waiting
}

// firstNames returns the first names in alphabetical order. It sorts them once for each version,
// not for each client that asks.
func (a *attendance) firstNames() []string {
	if a.first == nil {
		a.first = slices.SortedFunc(maps.Keys(a.names), alphabetical)
		a.first = slices.Clip(a.first[:min(len(a.first), maxNames)])
	}
	return a.first
}

// of returns the names that are in the room.
func (p *presence) of(room string) *Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.rooms[room]
	if a == nil {
		return &Presence{Room: room}
	}
	return &Presence{Room: room, Version: a.version, Count: len(a.names), Names: a.firstNames()}
}

func alphabetical(a, b string) int {
	if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
