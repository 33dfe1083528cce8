package ws

import (
	"container/heap"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/internal/presence"
)

// simulatedDelay is the time between two looks at the clock of a Simnet, which leaps.
const simulatedDelay = 10 * time.Millisecond

// presences holds the presence of all rooms, and notifies their members on one goroutine. Safe for
// concurrent use.
type presences struct {
	// Immutable.
	manager *Manager
	node    *node            // nil without a Broker
	clock   func() time.Time // of the Simnet, or time.Now
	began   time.Time
	wake    chan struct{} // holds a token when due has a new first

	published atomic.Uint64 // notifications to all members of a room
	snapshots atomic.Uint64 // lists and numbers for one member
	resumed   atomic.Uint64 // members that needed the changes alone

	versions atomic.Uint64 // of the deltas of this node
	upAt     atomic.Int64  // time of the last connection to the broker

	mu    sync.Mutex
	known map[string]bool          // nodes that have sent parts; guarded by mu
	rooms map[string]*roomPresence // guarded by mu
	due   duePresences             // guarded by mu
}

func (a *presences) init(m *Manager) {
	a.manager, a.node, a.clock, a.known = m, m.node, m.cfg.Simnet.clock(), make(map[string]bool)
	a.began, a.wake, a.rooms = a.clock(), make(chan struct{}, 1), make(map[string]*roomPresence)
}

// now returns the time since the beginning.
func (a *presences) now() time.Duration { return a.clock().Sub(a.began) }

func (a *presences) get(id string) *roomPresence {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rooms[id]
}

// resume notes the list that a new member has. Client.mu is held.
func (a *presences) resume(id string, c *Client, has PresenceVersion) {
	if p := a.get(id); p != nil {
		p.show(c, has)
	}
}

func (a *presences) stats() PresenceStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return PresenceStats{
		Rooms: len(a.rooms), Published: a.published.Load(), Snapshots: a.snapshots.Load(),
		Resumed: a.resumed.Load(),
	}
}

// begin returns the presence of the rooms of that ID, and begins a missing one.
func (a *presences) begin(id string) *roomPresence {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.rooms[id]
	if p == nil {
		p = &roomPresence{
			all: a, id: id, epoch: rand.Text()[:12], place: -1, ranAt: -time.Hour,
			view:    presence.NewView(a.node != nil),
			clients: make(map[*Client]string), news: make(map[*Client]PresenceVersion),
		}
		a.rooms[id] = p
		if a.node != nil {
			a.node.interest.Add(p.topic())
		}
	}
	return p
}

// schedule lets p run at a time, or before.
func (a *presences) schedule(p *roomPresence, at time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case p.place < 0:
		p.at = at
		heap.Push(&a.due, p)
	case at < p.at:
		p.at = at
		heap.Fix(&a.due, p.place)
	}
	if a.due[0] == p {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// next takes the room that has to run now, or returns the time until the first one.
func (a *presences) next() (p *roomPresence, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.due) == 0 {
		return nil, pruneInterval
	}
	if wait := min(pruneInterval, a.due[0].at-a.now()); wait > 0 {
		if a.manager.cfg.Simnet != nil {
			wait = simulatedDelay
		}
		return nil, wait
	}
	return heap.Pop(&a.due).(*roomPresence), 0
}

// start notifies the members until stop is called, which waits for the end.
func (a *presences) start() (stop func()) {
	var goroutine sync.WaitGroup
	ended := make(chan struct{})
	goroutine.Go(func() { a.run(ended) }) // owned by Run, which calls stop
	return func() {
		close(ended)
		goroutine.Wait()
	}
}

func (a *presences) run(ended <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pruned := a.now()
	for {
		if a.node != nil && a.now()-pruned >= pruneInterval {
			pruned = a.now()
			a.prune()
		}
		p, wait := a.next()
		if p != nil {
			p.run()
			continue
		}
		timer.Reset(wait)
		select {
		case <-a.wake:
		case <-timer.C:
		case <-ended:
			return
		}
	}
}

// duePresences is a heap of rooms by the time of their next run.
type duePresences []*roomPresence

func (d duePresences) Len() int           { return len(d) }
func (d duePresences) Less(i, j int) bool { return d[i].at < d[j].at }

func (d duePresences) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *duePresences) Push(x any) {
	p := x.(*roomPresence)
	p.place = len(*d)
	*d = append(*d, p)
}

// Pop implements heap.Interface.
func (d *duePresences) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	p.place = -1
	(*d)[last] = nil
	*d = (*d)[:last]
	return p
}

// remove removes p, which has ended. A member that joins begins another one.
func (a *presences) remove(p *roomPresence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.rooms, p.id)
	if a.node != nil {
		a.node.interest.Remove(p.topic())
	}
	if p.place >= 0 {
		heap.Remove(&a.due, p.place)
	}
}
