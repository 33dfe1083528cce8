package engine

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

const (
	// maxWritev is how many frames go into one writev: IOV_MAX on Linux.
	maxWritev = 1024
	// maxWriteBytes bounds one writev. More than a socket buffer takes is
	// gathered in vain.
	maxWriteBytes = 256 << 10
)

// DeliverInLoop queues f on c, and reports whether it was taken. It may be
// dropped, which is counted, if c is closing, or if its queue is at a bound and
// its socket is full. It writes only if the queue is at a bound.
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

// pushInLoop queues a frame whose room is reserved, or that needs none. It
// reports whether it is still queued: the budget may have cost it.
func (s *Shard) pushInLoop(c *Conn, f *Frame) bool {
	s.endReplyOf(c) // keep the order of what is already in the batch
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

// pushControl queues a ping or pong. At most one of a kind waits: a client
// that floods pings and reads nothing is owed only the latest pong
// (RFC 6455 section 5.5.3).
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

// pushFirst queues bytes that go out before any frame: the handshake's answer.
func (s *Shard) pushFirst(c *Conn, data []byte) {
	if c.out == nil { // the last of a TLS handshake may still wait
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

// pushLast queues the close frame, which goes behind everything.
func (s *Shard) pushLast(c *Conn, data []byte) {
	s.pushInLoop(c, &Frame{data: data, exempt: true})
}

// flush writes what c has pending until it is sent or the socket is full.
func (s *Shard) flush(c *Conn) { s.flushSome(c, math.MaxInt) }

// flushSome is flush that ends when about most bytes are written. If then
// something is left, c waits at the end of the list for its next write.
func (s *Shard) flushSome(c *Conn, most int) {
	s.mustBeInLoop()
	c.unset(dirty)
	if c.tls() != nil {
		s.flushTLS(c, most)
		return
	}
	for c.out != nil && !c.is(blocked) && !c.is(doomed) && c.state.Load() != stateClosed {
		s.purge(c)
		s.commit(c)
		iov, total := c.out.gather(s.iov[:0], maxWriteBytes)
		if total == 0 { // all has expired
			s.flushed(c)
			return
		}
		n, err := s.writev(c, iov)
		clear(iov)
		s.stats.writes.add(1)
		s.clock.work += writeWork
		if n > 0 {
			s.clock.work += n
			s.stats.bytesOut.add(uint64(n))
			s.sent(c, c.out.advance(n))
		}
		switch {
		case errors.Is(err, unix.EAGAIN) || (err == nil && n < total):
			if !s.sendRest(c) {
				s.block(c)
			}
		case err != nil && !errors.Is(err, unix.EINTR):
			s.doom(c, err)
			s.eng.handler.OnWriteError()
		case c.out.empty():
			s.flushed(c)
		default:
			if most -= n; most <= 0 {
				s.markDirty(c)
				return
			}
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
	s.noteSpace(c)
}

// flushed gives the empty queue of c back.
func (s *Shard) flushed(c *Conn) {
	s.putQueue(c)
	s.noteDrained(c)
	s.noteSpace(c)
	s.sentAll(c)
}

// block makes c wait until its socket is writable again.
func (s *Shard) block(c *Conn) {
	if c.tls() != nil {
		s.weighSealed(c)
	}
	c.set(blocked)
	c.queued[LaneNormal].Or(blockedBit)
	now := s.eng.now.Load()
	c.out.noteBegun(now, c.out.sealed > 0)
	c.out.noteAges(now, s.eng.markSpacing)
	s.beginStall(c)
	s.lag(c)
	if !c.is(withheld) {
		s.stats.blockedTotal.add(1)
		if err := s.arm(c); err != nil {
			s.doom(c, err)
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

// writableTask informs the loop that a connection's socket is writable: the peer
// has taken bytes.
type writableTask Conn

func (t *writableTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if c.is(blocked) && !c.is(withheld) && c.state.Load() != stateClosed {
		s.noteTaking(c)
		s.catchUp(c)
		s.unblock(c)
		s.markDirty(c)
	}
}

// putQueue gives c's queue back.
func (s *Shard) putQueue(c *Conn) {
	s.free.put(c.out)
	c.out = nil
}
