package engine

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

const (
	// maxWritev is how many frames go into one writev: IOV_MAX on Linux.
	maxWritev = 1024
	// maxWriteBytes bounds one writev. More than a socket buffer takes is
	// gathered in vain.
	maxWriteBytes = 256 << 10
	// maxReplyBytes is where a batch of replies is written before its read is
	// processed to the end.
	maxReplyBytes = 64 << 10
	// maxFreeQueues bounds a shard's free list of queues.
	maxFreeQueues = 8 << 10
)

// DeliverInLoop queues f on c, and reports whether it was taken. It may be
// dropped, which is counted, if c is closing, or if its queue is at a bound and
// its socket is full. It writes only if the queue is at a bound.
func (c *Conn) DeliverInLoop(f *Frame) bool { return c.shard.enqueueInLoop(c, f) }

// enqueueInLoop is DeliverInLoop.
func (s *Shard) enqueueInLoop(c *Conn, f *Frame) bool {
	s.mustBeInLoop()
	switch {
	case !c.takesDataInLoop():
		s.drop(f, DropClosed)
		return false
	case f.key != "" && s.conflate(c, f):
		return true
	case c.reserve(f):
		return s.pushInLoop(c, f)
	}
	return s.overflow(c, f)
}

// conflate puts f in the place of a queued frame with the same key, if there is
// one and f fits there.
func (s *Shard) conflate(c *Conn, f *Frame) bool {
	if c.out == nil {
		return false
	}
	old := c.out.replace(f, func(old *Frame) bool { return c.reserveGrowth(f.lane, f.Len()-old.Len()) })
	if old == nil {
		return false
	}
	s.drop(old, DropConflated)
	if c.blocked {
		s.reweigh(c, f.cost()-old.cost())
		s.keepBudget(c, f)
	}
	return true
}

// overflow queues f on a connection whose queue is at a bound, if it can.
//
// First it writes: neither a batch of fan-outs nor messages that are still on
// their way through the inbox make a client that reads lose one. If then the
// socket is not full, f goes out at once, so that a queue holds at most one
// frame beyond its bounds. If it is, the policy decides.
func (s *Shard) overflow(c *Conn, f *Frame) bool {
	s.endReplyOf(c)
	s.flush(c)
	if !c.takesDataInLoop() || c.doomed {
		s.drop(f, DropClosed)
		return false
	}
	if !c.blocked {
		c.forceReserve(f)
		s.pushInLoop(c, f)
		s.flush(c)
		return true
	}
	s.noteSlow(c)
	s.purge(c)
	if c.reserve(f) || (s.policyOf(f) == DropOldest && s.makeRoom(c, f)) {
		return s.pushInLoop(c, f)
	}
	s.drop(f, DropFull)
	if s.policyOf(f) == Disconnect {
		s.disconnect(c, DropClosed)
	}
	return false
}

// makeRoom drops the oldest frames of f's lane until f fits, and reserves its
// room. It reports false if f does not fit beside a frame half sent.
func (s *Shard) makeRoom(c *Conn, f *Frame) bool {
	for c.out.lanes[f.lane].len() > 0 {
		s.evict(c, f.lane, true, DropFull)
		if c.reserve(f) {
			return true
		}
	}
	return false
}

// policyOf returns what happens to f at a full queue.
func (s *Shard) policyOf(f *Frame) Policy {
	if f.policy == 0 {
		return s.eng.cfg.Policy
	}
	return f.policy
}

// evict drops the oldest or the newest frame of a laggard's lane, which holds
// one.
func (s *Shard) evict(c *Conn, lane Lane, oldest bool, why DropReason) *Frame {
	f := c.out.evict(lane, oldest)
	s.lost(c, f, why)
	s.reweigh(c, -f.cost())
	return f
}

// lost counts a queued frame that is dropped.
func (s *Shard) lost(c *Conn, f *Frame, why DropReason) {
	c.unreserve(f.lane, 1, f.Len())
	s.drop(f, why)
}

// purge drops what has expired.
func (s *Shard) purge(c *Conn) {
	if c.out.expires == 0 {
		return
	}
	before := c.out.cost
	c.out.purge(s.eng.elapsed(), func(f *Frame) { s.lost(c, f, DropExpired) })
	if c.blocked {
		s.reweigh(c, c.out.cost-before)
	}
}

// discard drops all that c has queued, what is half sent included.
func (s *Shard) discard(c *Conn, why DropReason) {
	q := c.out
	before := q.cost
	q.clear(func(f *Frame) { s.lost(c, f, why) })
	if f := q.current; f != nil {
		q.current, q.cost = nil, 0
		if !f.exempt {
			s.lost(c, f, why)
		}
	}
	if c.blocked {
		s.reweigh(c, -before)
	}
}

// disconnect closes a client that reads too slowly. What is queued is dropped,
// but for the rest of a frame half sent, and the close frame follows at the end
// of the running callback or turn: like doom, it must not touch what fan-out
// iterates over.
func (s *Shard) disconnect(c *Conn, why DropReason) {
	before := c.out.cost
	c.out.clear(func(f *Frame) { s.lost(c, f, why) })
	s.reweigh(c, c.out.cost-before)
	c.state.Store(stateClosing)
	c.end = slowEnd()
	s.disconnected = append(s.disconnected, c)
}

// slowEnd is the end of a client that reads too slowly.
func slowEnd() *CloseInfo {
	return &CloseInfo{Code: codec.CloseTryAgainLater, Reason: "client reads too slowly"}
}

// noteSlow tells, once, that a laggard's queue has reached the high-water mark,
// or that it loses messages.
func (s *Shard) noteSlow(c *Conn) {
	if !c.slow {
		c.slow = true
		s.stats.slow.add(1)
		s.eng.handler.OnSlow(c, c.QueuedBytes())
	}
}

// noteDrained tells that a slow client's queue is down to the low-water mark.
func (s *Shard) noteDrained(c *Conn) {
	if c.slow && c.end == nil && !c.above(&s.eng.lowMark) {
		c.slow = false
		s.stats.slow.add(^uint64(0))
		s.eng.handler.OnDrain(c)
	}
}

// pushInLoop queues a frame whose room is reserved, or that needs none. It
// reports whether it is still queued: the budget may have cost it.
func (s *Shard) pushInLoop(c *Conn, f *Frame) bool {
	s.endReplyOf(c) // keep the order of what is already in the batch
	if c.out == nil {
		c.out = s.getQueue()
	}
	c.out.push(f)
	if !c.blocked {
		s.markDirty(c)
		return true
	}
	s.reweigh(c, f.cost())
	if c.above(&s.eng.highMark) {
		s.noteSlow(c)
	}
	return s.keepBudget(c, f)
}

// pushControl queues a ping or pong. At most one of a kind waits: a client
// that floods pings and reads nothing is owed only the latest pong
// (RFC 6455 section 5.5.3).
func (s *Shard) pushControl(c *Conn, op codec.Opcode, payload []byte) {
	if s.reply.conn == c && c.out == nil {
		s.reply.buf = codec.AppendFrame(s.reply.buf, op, payload)
		return
	}
	f := &Frame{data: codec.NewFrame(op, payload), lane: LaneControl, exempt: true}
	if c.out != nil && c.out.replaceControl(f) {
		return
	}
	s.pushInLoop(c, f)
}

// pushFirst queues bytes that go out before any frame: the handshake's answer.
func (s *Shard) pushFirst(c *Conn, data []byte) {
	c.out = s.getQueue()
	c.out.begin(&Frame{data: data, exempt: true}, 0)
	s.markDirty(c)
}

// pushLast queues the close frame, which goes behind everything.
func (s *Shard) pushLast(c *Conn, data []byte) {
	s.pushInLoop(c, &Frame{data: data, exempt: true})
}

// flushDirty is the second pass of the fan-out: one writev for each connection
// that has something pending. It returns false if time ran out.
func (s *Shard) flushDirty(end time.Time) bool {
	for n := 1; !s.dirty.empty(); n++ {
		s.flush(s.dirty.pop())
		if n%16 == 0 && time.Now().After(end) {
			return s.dirty.empty()
		}
	}
	return true
}

// flush writes what c has pending until it is sent or the socket is full.
func (s *Shard) flush(c *Conn) {
	s.mustBeInLoop()
	c.dirty = false
	for c.out != nil && !c.blocked && !c.doomed && c.state.Load() != stateClosed {
		s.purge(c)
		iov, total := c.out.gather(s.iov[:0], maxWriteBytes)
		if total == 0 { // all has expired
			s.flushed(c)
			return
		}
		n, err := writev(int(c.fd), iov)
		clear(iov)
		s.stats.writes.add(1)
		if n > 0 {
			s.stats.bytesOut.add(uint64(n))
			s.sent(c, c.out.advance(n))
		}
		switch {
		case errors.Is(err, unix.EAGAIN) || (err == nil && n < total):
			s.block(c)
		case err != nil && !errors.Is(err, unix.EINTR):
			s.doom(c, err)
			s.eng.handler.OnWriteError()
		case c.out.empty():
			s.flushed(c)
		}
	}
}

// sent counts what has left c's queue for its socket.
func (s *Shard) sent(c *Conn, left [dataLanes]tally) {
	for lane, t := range left {
		if t.frames > 0 {
			c.unreserve(Lane(lane), t.frames, t.bytes)
			s.stats.messagesOut.add(uint64(t.frames))
		}
	}
	s.noteDrained(c)
}

// flushed gives the empty queue of c back.
func (s *Shard) flushed(c *Conn) {
	s.putQueue(c)
	s.noteDrained(c)
	s.sentAll(c)
}

// block makes c wait until its socket is writable again.
func (s *Shard) block(c *Conn) {
	c.blocked = true
	s.stats.blocked.add(1)
	s.lag(c)
	if err := s.eng.writable.arm(c); err != nil {
		s.doom(c, err)
	}
	if c.above(&s.eng.highMark) {
		s.noteSlow(c)
	}
	s.keepBudget(nil, nil)
}

// writableTask tells the loop that a connection's socket is writable.
type writableTask Conn

func (t *writableTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if c.blocked && c.state.Load() != stateClosed {
		s.catchUp(c)
		c.blocked = false
		s.markDirty(c)
	}
}

// getQueue takes a queue from the free list.
func (s *Shard) getQueue() *queue {
	if n := len(s.free); n > 0 {
		q := s.free[n-1]
		s.free[n-1] = nil
		s.free = s.free[:n-1]
		return q
	}
	return new(queue)
}

// putQueue gives c's queue back.
func (s *Shard) putQueue(c *Conn) {
	q := c.out
	c.out = nil
	q.reset()
	if len(s.free) < maxFreeQueues {
		s.free = append(s.free, q)
	}
}

// replyBatch collects what an inline handler sends on the connection whose
// read is being processed. It leaves in one write at the read's end.
type replyBatch struct {
	conn  *Conn // nil outside of a read
	buf   []byte
	tally // of its data frames, whose room in LaneNormal is reserved
}

// replyInLoop appends a reply to the batch if c is the connection being read,
// nothing is queued before it and nothing that this loop has published is
// still on its way.
func (s *Shard) replyInLoop(c *Conn, op codec.Opcode, payload []byte) bool {
	if s.reply.conn != c || c.out != nil || c.state.Load() != stateOpen || !s.caughtUpInLoop() {
		return false
	}
	n := codec.HeaderSize(len(payload)) + len(payload)
	if !c.reserveBytes(LaneNormal, n) {
		return false // the batch is written first
	}
	s.reply.buf = codec.AppendFrame(s.reply.buf, op, payload)
	s.reply.frames++
	s.reply.bytes += n
	if len(s.reply.buf) >= maxReplyBytes {
		s.writeReply()
	}
	return true
}

// beginReply opens the batch for c.
func (s *Shard) beginReply(c *Conn) { s.reply.conn = c }

// endReply writes the batch and closes it.
func (s *Shard) endReply() {
	if s.reply.conn != nil {
		s.writeReply()
		s.reply.conn = nil
	}
}

// endReplyOf is endReply if the batch is c's.
func (s *Shard) endReplyOf(c *Conn) {
	if s.reply.conn == c {
		s.endReply()
	}
}

// writeReply writes the batch; what the socket does not take is queued.
func (s *Shard) writeReply() {
	c, buf, replies := s.reply.conn, s.reply.buf, s.reply.tally
	s.reply.tally = tally{}
	if cap(s.reply.buf) > 4*maxReplyBytes {
		s.reply.buf = nil
	} else {
		s.reply.buf = s.reply.buf[:0]
	}
	if len(buf) == 0 {
		return
	}
	if c.doomed || c.state.Load() == stateClosed {
		s.dropReplies(c, replies)
		return
	}
	n, err := write(int(c.fd), buf)
	s.stats.writes.add(1)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		s.dropReplies(c, replies)
		s.doom(c, err)
		s.eng.handler.OnWriteError()
		return
	}
	n = max(n, 0)
	s.stats.bytesOut.add(uint64(n))
	if n < len(buf) {
		queued := s.queueRest(c, buf, n)
		replies.frames -= queued.frames
		replies.bytes -= queued.bytes
		s.block(c)
	}
	s.sent(c, [dataLanes]tally{LaneNormal: replies})
}

// dropReplies drops the batch of a connection that has failed.
func (s *Shard) dropReplies(c *Conn, replies tally) {
	c.unreserve(LaneNormal, replies.frames, replies.bytes)
	for range replies.frames {
		s.drop(nil, DropClosed)
	}
}

// queueRest queues the frames of buf that end beyond the n bytes which are
// sent, the first of them half sent, and counts them.
func (s *Shard) queueRest(c *Conn, buf []byte, n int) (queued tally) {
	c.out = s.getQueue()
	for len(buf) > 0 {
		size := codec.FrameSize(buf)
		if n >= size {
			buf, n = buf[size:], n-size
			continue
		}
		f := &Frame{data: bytes.Clone(buf[:size])}
		if codec.Opcode(f.data[0] & 0xf).IsControl() {
			f.lane, f.exempt = LaneControl, true
		}
		if n > 0 {
			c.out.begin(f, n)
		} else {
			c.out.push(f)
		}
		queued.add(f)
		buf, n = buf[size:], 0
	}
	return queued
}
