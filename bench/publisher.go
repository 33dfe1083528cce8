//go:build linux

package main

import (
	"encoding/binary"
	"time"

	"github.com/qi-realtime/ws"
)

// publisher sends stamped messages to the room.
type publisher struct {
	servant     *servant
	first       uint64 // sequence number; acknowledgements of earlier ones are late
	size        int
	outstanding int
	credits     chan struct{} // nil at a fixed rate
	interval    time.Duration
	stop        chan struct{}
	stopped     chan struct{}
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

// run publishes until stop. At a fixed rate a message carries the time at which
// it was due, so that a publisher that falls behind does not hide it.
func (p *publisher) run() {
	defer close(p.stopped)
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
