package control

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// publisher sends messages to rooms: with a bound of unacknowledged ones, or at a
// fixed rate, or without a pause.
type publisher struct {
	host     *Host
	rooms    []ownRoom
	turn     atomic.Uint64 // the room that is next
	from     int           // number of the first room ...
	step     int           // ... and the distance of two rooms
	size     int
	credits  chan struct{} // one for each message that may be unacknowledged, or nil
	interval time.Duration // of a fixed rate, or 0
	workers  int           // goroutines
	stop     chan struct{}
	stopped  chan struct{}
}

// ownRoom is a room to which a publisher publishes.
type ownRoom struct {
	number int
	state  *roomState
	first  uint64 // sequence number; acknowledgements of earlier ones are late
}

func newPublisher(h *Host, c *Command) *publisher {
	p := &publisher{
		host: h, from: c.First, step: max(1, c.Step), size: c.Size, workers: max(1, c.Publishers),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	for n := p.from; n < max(1, c.Rooms); n += p.step {
		r := h.room(n)
		p.rooms = append(p.rooms, ownRoom{n, r, r.next})
	}
	switch {
	case c.Rate > 0:
		p.interval = time.Duration(float64(time.Second) / c.Rate)
	case c.Outstanding > 0:
		p.credits = make(chan struct{}, c.Outstanding)
		for range c.Outstanding {
			p.credits <- struct{}{}
		}
	}
	return p
}

// acked may run on an event loop: it must not block.
func (p *publisher) acked(room int, seq uint64) {
	turn := (room - p.from) / p.step
	if p.credits == nil || room < p.from || turn >= len(p.rooms) || seq < p.rooms[turn].first {
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
	var workers sync.WaitGroup
	for i := range p.workers {
		workers.Go(func() { // owned by run, which waits for it
			switch {
			case p.credits != nil:
				p.answer()
			case p.interval > 0:
				p.pace(i)
			default:
				p.flood()
			}
		})
	}
	workers.Wait()
}

// flood publishes one message over and over, as fast as the library takes it.
func (p *publisher) flood() {
	payload := make([]byte, p.size)
	publish := make([]func() error, len(p.rooms))
	for turn, room := range p.rooms {
		publish[turn] = func() error { return p.host.server.Publish(room.number, payload) }
		if s, ok := p.host.server.(preparer); ok {
			publish[turn] = s.Prepare(room.number, payload)
		}
	}
	for turn := 0; ; turn = (turn + 1) % len(publish) {
		select {
		case <-p.stop:
			return
		default:
		}
		if publish[turn]() != nil {
			p.host.errors.Add(1)
			continue
		}
		p.host.published.Add(1)
	}
}

// answer publishes whenever a message was acknowledged.
func (p *publisher) answer() {
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

// pace publishes at a fixed rate, which the workers share. A message carries the time at which it was
// due, so that a publisher that falls behind does not hide it.
func (p *publisher) pace(worker int) {
	payload := make([]byte, p.size)
	timer := time.NewTimer(0)
	for due := Now() + int64(worker)*int64(p.interval); ; {
		select {
		case <-p.stop:
			return
		case <-timer.C:
		}
		for ; due <= Now() && !p.stopping(); due += int64(p.workers) * int64(p.interval) {
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
	room := &p.rooms[(p.turn.Add(1)-1)%uint64(len(p.rooms))]
	for !p.host.publish(room.number, room.state, payload) {
		if p.stopping() {
			return
		}
	}
}
