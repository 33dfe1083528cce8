package engine

import (
	"math"

	"github.com/qi-realtime/ws/codec"
)

const (
	// maxWritev is the number of frames in one writev: IOV_MAX on Linux.
	maxWritev = 1024
	// maxWriteBytes bounds one writev. Gathering more than a socket buffer
	// takes is wasted work.
	maxWriteBytes = 256 << 10
)

// DeliverInLoop queues f on c, and reports whether f was taken. It drops and
// counts f if c is closing, or if c is blocked and its queue is at a bound. It
// writes only if the queue is at a bound.
func (c *Conn) DeliverInLoop(f *Frame) bool {
	return c.shard.enqueueInLoop(c, c.shard.variant(c, f))
}

// enqueueInLoop is DeliverInLoop.
func (s *Shard) enqueueInLoop(c *Conn, f *Frame) bool {
	s.mustBeInLoop()
	switch {
	case !c.takesDataInLoop():
		s.drop(f, DropClosed)
		return false
	case f.key != "":
		if replaced, kept := s.conflate(c, f); replaced {
			return kept
		}
	}
	if c.reserve(f) {
		return s.pushInLoop(c, f)
	}
	return s.overflow(c, f)
}

// pushInLoop queues a frame whose space is reserved, or that needs none. It
// reports whether the frame is still queued, because the budget may have
// dropped it.
func (s *Shard) pushInLoop(c *Conn, f *Frame) bool {
	s.endReplyOf(c) // keep the order: the batch comes first
	if c.out == nil {
		c.out = s.free.get()
	}
	c.out.push(f)
	if !c.is(blocked) {
		s.markDirty(c)
		return true
	}
	s.reweigh(c, f.cost())
	c.out.noteAges(s.eng.now.Load(), s.eng.markSpacing)
	if c.above(&s.eng.highMark) {
		s.noteSlow(c)
	}
	return s.keeps(c, f, s.keepBudget)
}

// pushPong queues the answer to a ping.
func (s *Shard) pushPong(c *Conn, payload []byte) {
	if s.reply.conn == c && c.out == nil {
		s.reply.buf = codec.AppendFrame(s.reply.buf, codec.OpPong, payload)
		return
	}
	s.pushControl(c, newControlFrame(codec.OpPong, payload))
}

func newControlFrame(op codec.Opcode, payload []byte) *Frame {
	return &Frame{data: codec.NewFrame(op, payload), lane: LaneControl, exempt: true}
}

// pushControl queues a ping or pong. At most one of each waits: a client that
// floods pings and reads nothing gets only the latest pong (RFC 6455 section
// 5.5.3).
func (s *Shard) pushControl(c *Conn, f *Frame) {
	if c.out == nil {
		s.pushInLoop(c, f)
		return
	}
	growth, replaced := c.out.replaceControl(f)
	if !replaced {
		s.pushInLoop(c, f)
		return
	}
	if growth != 0 && c.is(blocked) {
		s.reweigh(c, growth)
		s.keepBudget()
	}
}

// pushFirst queues bytes that precede all frames: the answer of the handshake.
func (s *Shard) pushFirst(c *Conn, data []byte) {
	if c.out == nil { // the last bytes of a TLS handshake may still wait
		c.out = s.free.get()
	}
	f := &Frame{data: data, exempt: true}
	c.out.begin(f, 0)
	if c.is(blocked) {
		s.reweigh(c, f.cost())
		return
	}
	s.markDirty(c)
}

// pushLast queues the close frame behind everything.
func (s *Shard) pushLast(c *Conn, data []byte) {
	s.pushInLoop(c, &Frame{data: data, exempt: true})
}

// flush writes c's queue until it is empty or the socket is full.
func (s *Shard) flush(c *Conn) { s.flushSome(c, math.MaxInt) }

// flushSome is flush that ends after about most bytes. If frames are left, c
// waits at the end of the list for its next write.
func (s *Shard) flushSome(c *Conn, most int) {
	s.mustBeInLoop()
	c.unset(dirty)
	c.transport().flush(c, most)
}

// noteWritten counts a write of n bytes of c's queue, or a failed one.
func (s *Shard) noteWritten(c *Conn, n int) {
	s.stats.writes.add(1)
	s.clock.work += writeWork
	if n > 0 {
		s.clock.work += n
		s.stats.bytesOut.add(uint64(n))
		s.sent(c, c.out.advance(n))
	}
}

// sent counts the frames that have left c's queue for its socket.
func (s *Shard) sent(c *Conn, left [dataLanes]tally) {
	for lane, t := range left {
		if t.frames > 0 {
			c.unreserve(Lane(lane), t.frames, t.bytes)
			s.stats.messagesOut.add(uint64(t.frames))
		}
	}
	s.noteDrained(c)
	s.noteSpace(c)
}

// flushed releases the empty queue of c.
func (s *Shard) flushed(c *Conn) {
	s.putQueue(c)
	s.noteDrained(c)
	s.noteSpace(c)
	s.sentAll(c)
}

// block makes c wait until its socket is writable again.
func (s *Shard) block(c *Conn) {
	s.weighSealed(c)
	c.set(blocked)
	c.queued[LaneNormal].Or(blockedBit)
	now := s.eng.now.Load()
	c.out.noteBegun(now, c.out.sealed > 0)
	c.out.noteAges(now, s.eng.markSpacing)
	s.beginStall(c)
	s.addBlocked(c)
	if !c.is(withheld) {
		s.stats.blockedTotal.add(1)
		if err := s.driver.arm(c); err != nil {
			s.closeLater(c, err)
		}
	}
	if c.above(&s.eng.highMark) {
		s.noteSlow(c)
	}
	s.keepBudget()
}

// unblock takes block back.
func (s *Shard) unblock(c *Conn) {
	c.unset(blocked)
	c.queued[LaneNormal].And(^uint64(blockedBit))
}

// writableTask reports to the loop that a connection's socket is writable: the
// peer has taken bytes.
type writableTask Conn

func (t *writableTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if c.is(blocked) && !c.is(withheld) && c.state.Load() != stateClosed {
		s.noteTaking(c)
		s.removeBlocked(c)
		s.unblock(c)
		s.markDirty(c)
	}
}

// putQueue releases c's queue.
func (s *Shard) putQueue(c *Conn) {
	s.free.put(c.out)
	c.out = nil
}

// minRest is the smallest rest of a partly sent frame that goes to the kernel
// without a bound of unsent bytes.
const minRest = 64 << 10

// sendRest writes the rest of a long, partly sent frame without the bound of
// unsent bytes, because nothing can replace or drop that rest: with the bound,
// several wake-ups for one frame made 1 MiB to one client take 1.6 ms of CPU
// instead of 1.0. The last write has ended early. write writes the rest, and
// reports whether c has nothing left to send.
func (s *Shard) sendRest(c *Conn, write func(*Conn) (done bool)) (done bool) {
	q, bound := c.out, s.eng.cfg.UnsentBytes
	if bound == 0 || q.current == nil || len(q.current.data)-q.sent < minRest {
		return false
	}
	if !s.driver.boundUnsent(c, 0) {
		return false
	}
	defer func() { s.driver.boundUnsent(c, bound) }()
	return write(c)
}

// weighSealed adds the bytes that wait in the transport to the memory of c's
// queue.
func (s *Shard) weighSealed(c *Conn) {
	growth := c.transport().queued() - c.out.sealed
	c.out.sealed += growth
	c.out.cost += growth
	if c.is(blocked) {
		s.reweigh(c, growth)
	}
}
