package control

import (
	"encoding/binary"
	"time"
)

// publisher sends messages to rooms: with a bound of unacknowledged ones, or at a
// fixed rate, or without a pause.
type publisher struct {
	host     *Host
	rooms    int
	states   []*roomState // of the rooms
	turn     int          // the room that is next
	first    []uint64     // sequence number of each room; acknowledgements of earlier ones are late
	size     int
	credits  chan struct{} // one for each message that may be unacknowledged, or nil
	interval time.Duration // of a fixed rate, or 0
	stop     chan struct{}
	stopped  chan struct{}
}

func newPublisher(h *Host, c *Command) *publisher {
	p := &publisher{
		host: h, rooms: max(1, c.Rooms), size: c.Size,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	for n := range p.rooms {
		r := h.room(n)
		p.states, p.first = append(p.states, r), append(p.first, r.next)
	}
	switch {
	case c.Rate > 0:
		p.interval = time.Duration(float64(time.Second) / c.Rate)
	case c.Outstanding > 0:
		p.credits = make(chan struct{}, c.Outstanding)
	}
	return p
}

// acked may run on an event loop: it must not block.
func (p *publisher) acked(room int, seq uint64) {
	if p.credits == nil || room >= len(p.first) || seq < p.first[room] {
		return
	}
	select {
	case p.credits <- struct{}{}:
	default:
	}
}

// run publishes until stop.
func (p *publisher) run() {
	defer close(p.stopped)
	switch {
	case p.credits != nil:
		p.answer()
	case p.interval > 0:
		p.pace()
	default:
		p.flood()
	}
}

// flood publishes one message over and over, as fast as the library takes it.
func (p *publisher) flood() {
	payload := make([]byte, p.size)
	publish := make([]func() error, p.rooms)
	for room := range publish {
		publish[room] = func() error { return p.host.server.Publish(room, payload) }
		if s, ok := p.host.server.(preparer); ok {
			publish[room] = s.Prepare(room, payload)
		}
	}
	for room := 0; ; room = (room + 1) % p.rooms {
		select {
		case <-p.stop:
			return
		default:
		}
		if publish[room]() != nil {
			p.host.errors.Add(1)
			continue
		}
		p.host.published.Add(1)
	}
}

// answer publishes whenever a message was acknowledged.
func (p *publisher) answer() {
	for range cap(p.credits) {
		p.credits <- struct{}{}
	}
	payload := make([]byte, p.size)
	for {
		select {
		case <-p.stop:
			return
		case <-p.credits:
			p.publish(payload, Now())
		}
	}
}

// pace publishes at a fixed rate. A message carries the time at which it was
// due, so that a publisher that falls behind does not hide it.
func (p *publisher) pace() {
	payload := make([]byte, p.size)
	timer := time.NewTimer(0)
	for due := Now(); ; {
		select {
		case <-p.stop:
			return
		case <-timer.C:
		}
		for ; due <= Now() && !p.stopping(); due += int64(p.interval) {
			p.publish(payload, due)
		}
		timer.Reset(time.Duration(due - Now()))
	}
}

func (p *publisher) stopping() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// publish sends the next message of the room whose turn it is.
func (p *publisher) publish(payload []byte, due int64) {
	binary.LittleEndian.PutUint64(payload[8:], uint64(due))
	for !p.host.publish(p.turn, p.states[p.turn], payload) {
		if p.stopping() {
			return
		}
	}
	p.turn = (p.turn + 1) % p.rooms
}
