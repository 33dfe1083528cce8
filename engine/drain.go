package engine

import (
	"context"
	"math"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/qi-realtime/ws/codec"
)

// Stop closes every connection with code and reason behind its queued frames,
// and ends the loops. If ctx ends before the peers have answered, Stop closes
// their sockets at once and returns ctx.Err(). A loop that a handler holds then
// ends when the handler returns; Stop does not wait for it. Calls after the
// first wait for the same end.
func (e *Engine) Stop(ctx context.Context, code codec.CloseCode, reason string) error {
	e.beginDrain(CloseInfo{Code: code, Reason: reason})
	if e.running.CompareAndSwap(false, true) {
		close(e.stopped) // never ran
		return nil
	}
	select {
	case <-e.started: // or the start fails: both within bootTime
	case <-e.stopped:
		return nil
	}
	e.closeAll.Do(func() {
		for _, s := range e.shards {
			s.Post(newDrain(e.drainEnd))
		}
	})
	e.stopAccepting(ctx)
	err := e.awaitEmpty(ctx)
	e.haltOnce.Do(func() {
		go func() { // ends with the loops
			e.enrolls.Wait()
			e.halt()
		}()
	})
	select {
	case <-e.stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case <-e.stopped:
		return err
	case <-time.After(haltTime):
		return ctx.Err()
	}
}

// haltTime is the time that Stop waits for the loops after the end of its
// context. They need longer only while a handler holds one.
const haltTime = time.Second

// beginDrain refuses all later connections.
func (e *Engine) beginDrain(end CloseInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.draining.Load() {
		e.drainEnd = end
		e.draining.Store(true)
	}
}

// drain ends the connections of a shard in the order of its timer wheel. It is a
// cursor, which may rest after each connection: Stop rests at the end of a turn, and a
// drain with a pace between its steps. It is done after a round that finds none, and in
// which no connection has moved on the wheel, perhaps behind the cursor.
//
// Loop-confined: use only on the event loop that owns the connections.
type drain struct {
	wants func(*Conn) bool // reports whether the drain has yet to end a connection
	take  func(*Conn)      // begins to end a connection
	slot  int              // of the wheel
	next  *Conn            // in slot; nil at its end
	clean int              // slots in a row without a connection to end, and since one has moved
	count int              // connections that the drain has come to
}

// newDrain returns a drain without a pace.
func newDrain(end CloseInfo) *drain {
	return &drain{wants: (*Conn).drains, take: func(c *Conn) { c.drain(end) }}
}

// step ends up to most connections, as far as the turn's time allows, and reports whether
// none is left. A shard has one drain at a time.
func (d *drain) step(s *Shard, most int) (done bool) {
	s.wheel.drain = d
	for d.clean <= wheelSlots {
		c := d.next
		switch {
		case c == nil:
			d.clean++
			d.slot = (d.slot + 1) % wheelSlots
			d.next = s.wheel.slots[d.slot]
		case !d.wants(c):
			d.next = c.next
		case most == 0:
			return false
		default:
			most--
			d.count++
			d.clean = 0
			d.next = c.next
			d.take(c)
		}
		if s.clock.work += walkWork; s.clock.outOfTime() {
			return false
		}
	}
	s.wheel.drain = nil
	return true
}

// restart lets a drain that is done look for connections again.
func (d *drain) restart() { d.clean, d.next = 0, nil }

// scheduled records that a connection has come to a slot.
func (d *drain) scheduled() {
	if d != nil {
		d.clean = 0
	}
}

// canceled records that c is about to leave its slot.
func (d *drain) canceled(c *Conn) {
	if d != nil && d.next == c {
		d.next = c.next
	}
}

// drains reports whether a drain without a pace has yet to close c.
func (c *Conn) drains() bool {
	return !c.is(pendingClose|lingering) && c.end() == nil
}

// drain begins the close handshake of c, or refuses its upgrade request.
func (c *Conn) drain(end CloseInfo) {
	c.set(forced)
	if c.is(opened) {
		c.beginCloseInLoop(end)
		return
	}
	c.shard.endAdmitting(c)
	c.refuseRequest(errStopping)
}

// RunInLoop drains without a pace.
func (d *drain) RunInLoop(s *Shard) {
	if !d.step(s, math.MaxInt) {
		s.SuspendInLoop(d)
	}
}

// errStopping refuses an upgrade request while the engine stops.
var errStopping = &codec.RequestError{Status: 503, Reason: "server is stopping"}

// turnAway refuses a connection that does not come in. The engine does not wait for
// its end.
func (c *Conn) turnAway(refusal *codec.RequestError) gnet.Action {
	c.set(uncounted)
	c.shard.eng.open.Add(-1)
	if !c.transport().readable() {
		return gnet.Close // the peer could not read a refusal
	}
	c.refuseRequest(refusal)
	return gnet.None
}

// stopAccepting ends the acceptance of connections, because a drain would not
// end while the engine accepted connections only to refuse them.
func (e *Engine) stopAccepting(ctx context.Context) {
	e.accept.giveUp(ctx)
	e.closeServed()
}

// awaitEmpty waits until no connection is left. It polls, because this happens
// once in an engine's life.
func (e *Engine) awaitEmpty(ctx context.Context) error {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for e.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.stopped:
			return nil
		case <-poll.C:
		}
	}
	return nil
}

// halt ends the loops.
func (e *Engine) halt() {
	e.setHalting()
	e.closeOnce()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wakers {
		w.yield()
	}
}

// setHalting prevents all later wake-ups of loops, because their wake-up
// descriptors may be closed and reused. It returns the previous value.
func (e *Engine) setHalting() (before bool) {
	e.gate.Lock()
	defer e.gate.Unlock()
	return e.halting.Swap(true)
}

func (e *Engine) isStopped() bool {
	select {
	case <-e.stopped:
		return true
	default:
		return false
	}
}

// abandonAll abandons the tasks in the inboxes after the loops have ended.
func (e *Engine) abandonAll() {
	for _, s := range e.shards {
		s.abandonRest()
		s.batch.close()
		s.gid.Store(0) // another goroutine may get the same descriptor
		s.in.drain(s)
	}
}
