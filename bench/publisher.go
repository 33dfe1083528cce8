//go:build linux

package main

import (
	"encoding/binary"
	"time"

	"github.com/qi-realtime/ws"
)

// publisher sends messages to the room: so many unacknowledged, or at a fixed
// rate, or without a pause.
type publisher struct {
	servant  *servant
	first    uint64 // sequence number; acknowledgements of earlier ones are late
	size     int
	credits  chan struct{} // one for each message that may be unacknowledged, or nil
	interval time.Duration // of a fixed rate, or 0
	stop     chan struct{}
	stopped  chan struct{}
}

func newPublisher(s *servant, c *command) *publisher {
	p := &publisher{
		servant: s, first: s.published.Load(), size: c.Size,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	switch {
	case c.Rate > 0:
		p.interval = time.Duration(float64(time.Second) / c.Rate)
	case c.Outstanding > 0:
		p.credits = make(chan struct{}, c.Outstanding)
	}
	return p
}

// acked runs on an event loop: it must not block.
func (p *publisher) acked(seq uint64) {
	if seq < p.first || p.credits == nil {
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
	if p.credits == nil && p.interval == 0 {
		p.flood()
		return
	}
	p.pace()
}

// flood publishes one message over and over, as fast as the rings take it.
func (p *publisher) flood() {
	s := p.servant
	prepared := ws.Prepare(ws.OpBinary, make([]byte, p.size))
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		if s.manager.BroadcastPrepared(benchRoom, prepared, nil) != nil {
			s.errors.Add(1)
			continue
		}
		s.published.Add(1)
	}
}

// pace publishes stamped messages. At a fixed rate a message carries the time at
// which it was due, so that a publisher that falls behind does not hide it.
func (p *publisher) pace() {
	for range cap(p.credits) {
		p.credits <- struct{}{}
	}
	payload := make([]byte, p.size)
	timer := time.NewTimer(0)
	due := monotonicNow()
	for {
		select {
		case <-p.stop:
			return
		case <-p.credits:
			due = monotonicNow()
		case <-timer.C:
			if p.credits != nil {
				continue
			}
		}
		p.publish(payload, due)
		if p.credits == nil {
			due += int64(p.interval)
			timer.Reset(time.Duration(due - monotonicNow()))
		}
	}
}

func (p *publisher) publish(payload []byte, due int64) {
	s := p.servant
	binary.LittleEndian.PutUint64(payload, s.published.Load())
	binary.LittleEndian.PutUint64(payload[8:], uint64(due))
	for s.manager.BroadcastPrepared(benchRoom, ws.Prepare(ws.OpBinary, payload), nil) != nil {
		s.errors.Add(1)
		select {
		case <-p.stop:
			return
		default:
		}
	}
	s.published.Add(1)
}
