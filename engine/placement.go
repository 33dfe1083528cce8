package engine

import (
	"context"
	"hash/maphash"

	"golang.org/x/sys/unix"
)

// A message to a room wakes each loop that has members, and a wake-up costs about
// as much as a write. So the members of a small room should share a loop. The
// application knows at the handshake which connections belong together, and gives
// them one key. The kernel chooses the loop that accepts a connection before the
// request has come, so an accepted connection moves: once, between the decision
// on its request and its opening. Nothing refers to it then except its own
// handshake, so it has no state to bring along: no queue, no timer, no room.

// shardFor returns the shard of the connections with that key, nil for no key.
func (e *Engine) shardFor(key string) *Shard {
	if key == "" {
		return nil
	}
	return e.shards[maphash.String(e.placement, key)%uint64(len(e.shards))]
}

// placeFor takes a place on the shard of the key, or without a key on that with
// the fewest connections.
func (e *Engine) placeFor(key string) *place {
	if s := e.shardFor(key); s != nil {
		return s.place()
	}
	return e.choosePlace()
}

// move hands c, whose request is accepted, to the loop of the decision's
// Placement, which opens it. It returns false if c stays: it is on that loop,
// there is no such loop, or c has state that cannot move.
func (c *Conn) move(d *Decision) (moved bool) {
	s, e := c.shard, c.shard.eng
	to := e.shardFor(d.Placement)
	if to == nil || to == s || !c.movable() || !e.beginEnroll() {
		return false
	}
	early, _ := c.gc.Peek(-1)
	brought := &enrolling{
		arrival: arrival{place: to.place(), peer: c.peerAddr()}, response: d.Response,
		early: append([]byte(nil), early...), began: s.handshakes[c],
	}
	fd, err := s.driver.handOver(c)
	if err != nil {
		brought.place.giveUp()
		return false
	}
	s.wheel.cancel(c)
	s.endHandshake(c)
	e.open.Add(-1)
	s.stats.connections.add(^uint64(0))
	go e.enrollMoved(c, fd, brought) // ends when the loop has taken c or has ended, or after HandshakeTimeout
	return true
}

// movable reports whether c has neither bytes to send nor paused input. Ciphertext
// that was received belongs to the TLS state, and could not be brought.
func (c *Conn) movable() bool {
	return c.out == nil && c.transport().queued() == 0 && !c.is(dirty|blocked|unwatched|pausedFlags) &&
		(c.tls() == nil || c.gc.InboundBuffered() == 0)
}

// enrollMoved hands c, whose socket is fd, to the loop of its new place. It closes
// fd. If the loop does not take c, it refuses the peer.
func (e *Engine) enrollMoved(c *Conn, fd int, brought *enrolling) {
	defer func() { _ = unix.Close(fd) }()
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.HandshakeTimeout)
	defer cancel()
	nc, err := connOf(fd)
	if err != nil {
		brought.place.giveUp()
		e.Uncount(c)
	} else {
		err = e.hand(ctx, c, nc, brought)
	}
	if err != nil && !c.Opened() {
		e.refuseSocket(fd)
		e.handler.Abandon(c)
	}
}
