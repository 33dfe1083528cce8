package harness

import (
	"fmt"
	"sync"

	"github.com/qi-realtime/ws"
)

// Presence follows clients and their rooms by events alone. Safe for concurrent use.
type Presence struct {
	mu        sync.Mutex
	connected map[string]*ws.Client
	members   map[string]bool // client and room
	wrong     []string
}

// FollowEvents returns the Presence of m.
func FollowEvents(m *ws.Manager) *Presence {
	p := &Presence{connected: map[string]*ws.Client{}, members: map[string]bool{}}
	for _, typ := range []ws.EventType{
		ws.EventClientConnected, ws.EventClientDisconnected, ws.EventRoomJoined, ws.EventRoomLeft,
	} {
		m.Subscribe(typ, p.note)
	}
	return p
}

func (p *Presence) note(e ws.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Type {
	case ws.EventClientConnected:
		p.expect(e, p.connected[e.ClientID] == nil)
		p.connected[e.ClientID] = e.Client
	case ws.EventClientDisconnected:
		p.expect(e, p.connected[e.ClientID] == e.Client)
		delete(p.connected, e.ClientID)
	default:
		member := membershipOf(e.ClientID, e.Data.(string))
		p.expect(e, p.members[member] == (e.Type == ws.EventRoomLeft) && p.connected[e.ClientID] == e.Client)
		p.members[member] = e.Type == ws.EventRoomJoined
	}
}

func (p *Presence) expect(e ws.Event, right bool) {
	if !right {
		p.wrong = append(p.wrong, fmt.Sprint(e.Type, " ", e.ClientID, " ", e.Data))
	}
}

// String returns the numbers of p, for failures.
func (p *Presence) String() string {
	connected, members := p.Count()
	return fmt.Sprint(connected, " clients, ", members, " memberships, out of order: ", p.FirstWrong())
}

// FirstWrong returns the first event that came out of order, "" if there is none.
func (p *Presence) FirstWrong() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) == 0 {
		return ""
	}
	return fmt.Sprint(len(p.wrong), ", first ", p.wrong[0])
}

func membershipOf(client, room string) string { return client + " in " + room }

// Count returns the numbers of connected clients and of memberships.
func (p *Presence) Count() (connected, members int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, in := range p.members {
		if in {
			members++
		}
	}
	return len(p.connected), members
}
