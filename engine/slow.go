package engine

import (
	"time"

	"github.com/qi-realtime/ws/codec"
)

// slowState is the part of a Shard that blocked and slow connections use.
//
// Loop-confined: use only on the event loop that owns the connections.
type slowState struct {
	blocked      blockedHeap
	disconnected []*Conn // slow connections whose close frame is pending
}

// conflate puts f in the place of a queued frame with the same key, if there is
// one and f fits there. kept reports whether f is still there, because the
// budget may have dropped it.
func (c *Conn) conflate(f *Frame) (replaced, kept bool) {
	s := c.shard
	if c.out == nil {
		return false, false
	}
	old := c.out.replace(f, func(old *Frame) bool { return c.reserveGrowth(f.lane, f.Len()-old.Len()) })
	if old == nil {
		return false, false
	}
	s.drop(old, DropConflated)
	if c.is(blocked) {
		s.reweigh(c, f.cost()-old.cost())
		return true, s.keeps(c, f, s.keepBudget)
	}
	return true, true
}

// overflow queues f on a connection whose queue is at a bound, if possible.
//
// First it writes until f fits: a client that reads loses nothing because of a
// batch of fan-outs, or because of messages that are still on their way through
// the inbox. If such messages leave no space for f although everything is
// written, f is sent at once, so a queue holds at most one frame beyond its
// bounds. If the socket is full, the policy decides.
func (c *Conn) overflow(f *Frame) bool {
	s := c.shard
	s.endReplyOf(c)
	for c.out != nil && !c.is(blocked|pendingClose) && c.takesDataInLoop() {
		c.flushSome(maxFlushBytes)
		if !c.is(blocked) && c.takesDataInLoop() && c.reserve(f) {
			return c.pushInLoop(f)
		}
	}
	if !c.takesDataInLoop() || c.is(pendingClose) {
		s.drop(f, DropClosed)
		return false
	}
	if !c.is(blocked) {
		c.forceReserve(f)
		c.pushInLoop(f)
		return s.keeps(c, f, c.flush)
	}
	return c.applyPolicy(f)
}

// applyPolicy lets the policy decide about f, because the queue is at a bound
// and the socket is full. It reports whether f was queued.
func (c *Conn) applyPolicy(f *Frame) bool {
	s := c.shard
	c.noteSlow()
	if s.policyOf(f) == CatchUp {
		return false
	}
	c.purge()
	if c.reserve(f) || c.reserveReply(f) || (s.policyOf(f) == DropOldest && c.makeSpace(f)) {
		return c.pushInLoop(f)
	}
	s.drop(f, DropFull)
	if s.policyOf(f) == Disconnect {
		c.disconnect(DropClosed)
	}
	return false
}

// makeSpace drops the oldest frames of f's lane until f fits, and reserves its
// space. It returns false if f does not fit beside a partly sent frame and the
// protected answers.
func (c *Conn) makeSpace(f *Frame) bool {
	for c.evict(f.lane, true, DropFull) != nil {
		if c.reserve(f) {
			return true
		}
	}
	return false
}

// policyOf returns the policy for f at a full queue.
func (s *Shard) policyOf(f *Frame) Policy {
	if f.policy == 0 {
		return s.eng.cfg.OverflowPolicy
	}
	return f.policy
}

// evict drops the oldest or newest frame of a blocked connection's lane, except
// protected answers. It returns nil if there is none.
func (c *Conn) evict(lane Lane, oldest bool, why DropReason) *Frame {
	f := c.out.evict(lane, oldest)
	if f == nil {
		return nil
	}
	c.lost(f, why)
	c.shard.reweigh(c, -f.cost())
	return f
}

// lost counts a queued frame as dropped.
func (c *Conn) lost(f *Frame, why DropReason) {
	s := c.shard
	c.unreserve(f.lane, 1, f.Len())
	s.drop(f, why)
	if c == s.newest.conn && f == s.newest.frame {
		s.newest.lost = true
	}
}

// purge drops the expired frames.
func (c *Conn) purge() {
	s := c.shard
	if c.out.expires == 0 {
		return
	}
	before := c.out.cost
	expired := false
	c.out.purge(s.eng.elapsed(), func(f *Frame) {
		expired = true
		c.lost(f, DropExpired)
	})
	if expired && c.is(blocked) {
		c.noteSlow()
		s.reweigh(c, c.out.cost-before)
	}
}

// discard drops all frames of c, including a partly sent one.
func (c *Conn) discard(why DropReason) {
	q := c.out
	before := q.cost
	q.clear(func(f *Frame) { c.lost(f, why) })
	q.cost, q.sealed = 0, 0
	c.transport().discard()
	if f := q.current; f != nil {
		q.current = nil
		if !f.exempt {
			c.lost(f, why)
		}
	}
	if c.is(blocked) {
		c.shard.reweigh(c, -before)
	}
}

// disconnect closes a client that reads too slowly. Its queued frames are
// dropped, except for the rest of a partly sent one, and the close frame
// follows at the end of the running callback or turn, because disconnect must
// not touch lists over which a fan-out iterates.
func (c *Conn) disconnect(why DropReason) {
	s := c.shard
	before := c.out.cost
	c.out.clear(func(f *Frame) { c.lost(f, why) })
	s.reweigh(c, c.out.cost-before)
	c.state.Store(stateClosing)
	c.setEnd(slowEnd())
	s.disconnected = append(s.disconnected, c)
}

// slowEnd is the close of a client that reads too slowly.
func slowEnd() *CloseInfo {
	return &CloseInfo{Code: codec.CloseTryAgainLater, Reason: "client reads too slowly"}
}

// noteSlow reports once that a blocked connection's queue has reached the
// high-water mark, that its oldest frame has reached the high-water age, or
// that it loses messages.
func (c *Conn) noteSlow() {
	s := c.shard
	if !c.is(slow) {
		c.set(slow)
		s.stats.slow.add(1)
		s.eng.observer.OnSlow(c, c.QueuedBytes())
	}
}

// noteDrained reports that a slow client's queue is down to the low-water mark,
// and that no frame in it has reached a quarter of the high-water age.
func (c *Conn) noteDrained() {
	s := c.shard
	if c.is(slow) && c.end() == nil && !c.above(&s.eng.lowMark) && !c.stale() {
		c.unset(slow)
		s.stats.slow.add(^uint64(0))
		s.eng.observer.OnDrain(c)
	}
}

// defaultMarkAge spaces the marks of a queue without a high-water age.
const defaultMarkAge = 2 * time.Second

// queueAge returns the age of c's oldest frame.
func (c *Conn) queueAge() time.Duration {
	s := c.shard
	if c.out == nil {
		return 0
	}
	return time.Duration(c.out.age(s.eng.now.Load())) * s.eng.tickTime
}

// checkAges marks the blocked connections as slow whose oldest frame has
// reached the high-water age, and records the greatest age.
func (s *Shard) checkAges() {
	var oldest time.Duration
	now := s.eng.now.Load()
	for _, c := range s.blocked.conns {
		if c.is(withheld) {
			continue // nothing is written to it yet
		}
		c.out.noteAges(now, s.eng.markSpacing)
		s.stats.queued.Observe(c.QueuedBytes())
		age := c.queueAge()
		oldest = max(oldest, age)
		if high := s.eng.cfg.HighWaterAge; high > 0 && age >= high && c.end() == nil {
			c.noteSlow()
		}
		c.checkStall()
	}
	s.stats.oldestWait.v.Store(uint64(oldest))
}

// stale reports whether a frame of c, a slow connection, has waited for a
// quarter of the high-water age. Marks are half of that age and a tick apart.
func (c *Conn) stale() bool {
	high := c.shard.eng.cfg.HighWaterAge
	return high > 0 && c.queueAge() >= high/4
}

// blockedHeap is the heap of a shard's blocked connections: first the one whose
// queue takes the most memory. Each queue knows its position.
//
// Loop-confined: use only on the event loop that owns the connections.
type blockedHeap struct {
	conns []*Conn
}

func (h *blockedHeap) cost(i int) int { return h.conns[i].out.cost }

// largest returns the memory of the largest queue.
func (h *blockedHeap) largest() int {
	if len(h.conns) == 0 {
		return 0
	}
	return h.cost(0)
}

func (h *blockedHeap) add(c *Conn) {
	c.out.rank = int32(len(h.conns))
	h.conns = append(h.conns, c)
	h.up(int(c.out.rank))
}

func (h *blockedHeap) remove(c *Conn) {
	i, last := int(c.out.rank), len(h.conns)-1
	h.swap(i, last)
	h.conns[last] = nil
	h.conns = h.conns[:last]
	if i < last {
		h.fix(h.conns[i])
	}
}

// fix restores the order after c's queue has changed.
func (h *blockedHeap) fix(c *Conn) {
	h.up(int(c.out.rank))
	h.down(int(c.out.rank))
}

func (h *blockedHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.cost(parent) >= h.cost(i) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *blockedHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.conns) {
			return
		}
		if child+1 < len(h.conns) && h.cost(child+1) > h.cost(child) {
			child++
		}
		if h.cost(i) >= h.cost(child) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *blockedHeap) swap(i, j int) {
	h.conns[i], h.conns[j] = h.conns[j], h.conns[i]
	h.conns[i].out.rank, h.conns[j].out.rank = int32(i), int32(j)
}

// addBlocked adds c, which has just become blocked, to the heap.
func (s *Shard) addBlocked(c *Conn) {
	s.blocked.add(c)
	s.stats.blocked.add(1)
	s.weighed(c.out.cost)
}

// removeBlocked removes c from the heap.
func (s *Shard) removeBlocked(c *Conn) {
	s.blocked.remove(c)
	s.stats.blocked.add(^uint64(0))
	s.weighed(-c.out.cost)
}

// reweigh updates the heap after the queue of c, a blocked connection, has
// grown by growth bytes of memory.
func (s *Shard) reweigh(c *Conn, growth int) {
	s.blocked.fix(c)
	s.weighed(growth)
}
