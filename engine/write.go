package engine

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/invariants"
)

const (
	// maxWritev is the number of frames in one writev: IOV_MAX on Linux.
	maxWritev = 1024
	// maxWriteBytes bounds one writev. Gathering more than a socket buffer
	// takes is wasted work.
	maxWriteBytes = 256 << 10
	// storedFrames bounds the queue of a blocked connection for frames under
	// CatchUp: the caller has them in store, so more of them cost memory and
	// Config.QueueBudget, and save nothing. With fewer, members whose socket is
	// full for a moment would leave the fan-out more often.
	storedFrames = 16
)

// DeliverInLoop queues f on c, and reports whether f was taken. It drops and
// counts f if c is closing, or if c is blocked and its queue is at a bound. It
// writes only if the queue is at a bound.
//
// Under CatchUp it does not take f if c is blocked and its queue holds
// storedFrames or is at the low-water mark, because the caller has f in store.
// RunWhenLowInLoop says when to deliver it again.
func (c *Conn) DeliverInLoop(f *Frame) bool {
	return c.enqueueInLoop(c.variant(f))
}

// enqueueInLoop is DeliverInLoop.
func (c *Conn) enqueueInLoop(f *Frame) bool {
	s := c.shard
	s.mustBeInLoop()
	switch {
	case !c.takesDataInLoop():
		s.drop(f, DropClosed)
		return false
	case f.keep == keepHistory && c.is(blocked) && c.above(&s.eng.storedMark):
		c.noteSlow()
		return false
	case f.key != "":
		if replaced, kept := c.conflate(f); replaced {
			return kept
		}
	}
	if c.reserve(f) {
		return c.pushInLoop(f)
	}
	return c.overflow(f)
}

// pushInLoop queues a frame whose space is reserved, or that needs none. It
// reports whether the frame is still queued, because the budget may have
// dropped it.
func (c *Conn) pushInLoop(f *Frame) bool {
	s := c.shard
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
		c.noteSlow()
	}
	return s.keeps(c, f, s.keepBudget)
}

// pushPong queues the answer to a ping.
func (c *Conn) pushPong(payload []byte) {
	s := c.shard
	if s.reply.conn == c && c.out == nil {
		s.reply.buf = codec.AppendFrame(s.reply.buf, codec.OpPong, payload)
		return
	}
	c.pushControl(newControlFrame(codec.OpPong, payload))
}

func newControlFrame(op codec.Opcode, payload []byte) *Frame {
	return &Frame{data: codec.NewFrame(op, payload), lane: LaneControl, exempt: true}
}

// pushControl queues a ping or pong. At most one of each waits: a client that
// floods pings and reads nothing gets only the latest pong (RFC 6455 section
// 5.5.3).
func (c *Conn) pushControl(f *Frame) {
	s := c.shard
	if c.out == nil {
		c.pushInLoop(f)
		return
	}
	growth, replaced := c.out.replaceControl(f)
	if !replaced {
		c.pushInLoop(f)
		return
	}
	if growth != 0 && c.is(blocked) {
		s.reweigh(c, growth)
		s.keepBudget()
	}
}

// pushFirst queues bytes that precede all frames: the answer of the handshake.
func (c *Conn) pushFirst(data []byte) {
	s := c.shard
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
func (c *Conn) pushLast(data []byte) {
	c.pushInLoop(&Frame{data: data, exempt: true})
}

// flush writes c's queue until it is empty or the socket is full.
func (c *Conn) flush() { c.flushSome(math.MaxInt) }

// flushSome is flush that ends after about most bytes. If frames are left, c
// waits at the end of the list for its next write.
func (c *Conn) flushSome(most int) {
	s := c.shard
	s.mustBeInLoop()
	if invariants.Enabled && s.batch.holds(c) {
		panic("a write to a connection in a batch")
	}
	c.unset(dirty)
	for begun := s.clock.work; c.mayWrite(); {
		if s.clock.work-begun >= most {
			s.markDirty(c)
			return
		}
		iov, total := c.gather(s.iov[:0], maxWriteBytes)
		if total == 0 {
			return
		}
		n, err := s.driver.writev(c, iov)
		clear(iov)
		s.stats.writes.add(1)
		c.wrote(n, total, err)
	}
}

// mayWrite reports whether c has a queue and its socket may take bytes.
func (c *Conn) mayWrite() bool {
	return c.out != nil && !c.is(blocked|pendingClose) && c.state.Load() != stateClosed
}

// gather appends to iov the next bytes to send, up to its capacity and about
// maxBytes. They stay in place until wrote. It returns none if all frames have
// expired or if sealing has failed.
func (c *Conn) gather(iov []unix.Iovec, maxBytes int) (_ []unix.Iovec, total int) {
	c.purge()
	c.commit()
	iov, total, err := c.transport().gather(c, iov, maxBytes)
	switch {
	case err != nil:
		c.failWrite(err)
		return nil, 0
	case total == 0 && c.out.empty():
		c.flushed()
	}
	return iov, total
}

// wrote continues after a write of the total bytes that gather returned: the
// socket has taken n, or the write has failed.
func (c *Conn) wrote(n, total int, err error) {
	n = max(n, 0)
	t := c.transport()
	t.sent(c, n)
	switch {
	case errors.Is(err, unix.EAGAIN) || (err == nil && n < total):
		if !c.sendRest() {
			c.block()
			return
		}
	case err != nil && !errors.Is(err, unix.EINTR):
		c.failWrite(err)
		return
	}
	if c.out.empty() && t.queued() == 0 {
		c.flushed()
	}
}

// failWrite ends c, because its write has failed.
func (c *Conn) failWrite(err error) {
	c.shard.closeLater(c, err)
	c.shard.eng.observer.OnWriteError()
}

// noteWritten counts n written bytes of c's queue, 0 for a failed write.
func (c *Conn) noteWritten(n int) {
	s := c.shard
	s.clock.work += writeWork
	if n > 0 {
		s.clock.work += n
		s.stats.bytesOut.add(uint64(n))
		c.sent(c.out.advance(n))
	}
}

// sent counts the frames that have left c's queue for its socket.
func (c *Conn) sent(left [dataLanes]tally) {
	s := c.shard
	for lane, t := range left {
		if t.frames > 0 {
			c.unreserve(Lane(lane), t.frames, t.bytes)
			s.stats.messagesOut.add(uint64(t.frames))
		}
	}
	c.noteDrained()
	s.noteSpace(c)
}

// flushed releases the empty queue of c.
func (c *Conn) flushed() {
	s := c.shard
	s.putQueue(c)
	c.noteDrained()
	s.noteSpace(c)
	c.sentAll()
}

// block makes c wait until its socket is writable again.
func (c *Conn) block() {
	s := c.shard
	c.weighSealed()
	c.set(blocked)
	c.queued[LaneNormal].Or(blockedBit)
	now := s.eng.now.Load()
	c.out.noteBegun(now, c.out.sealed > 0)
	c.out.noteAges(now, s.eng.markSpacing)
	c.beginStall()
	s.addBlocked(c)
	if !c.is(withheld) {
		s.stats.blockedTotal.add(1)
		if err := s.driver.arm(c); err != nil {
			s.closeLater(c, err)
		}
	}
	if c.above(&s.eng.highMark) {
		c.noteSlow()
	}
	s.keepBudget()
}

// unblock takes block back.
func (c *Conn) unblock() {
	c.unset(blocked)
	c.queued[LaneNormal].And(^uint64(blockedBit))
}

// writableTask reports to the loop that a connection's socket is writable: the
// peer has taken bytes.
type writableTask Conn

func (t *writableTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if c.is(blocked) && !c.is(withheld) && c.state.Load() != stateClosed {
		c.noteTaking()
		s.removeBlocked(c)
		c.unblock()
		s.markDirty(c)
	}
}

// putQueue releases c's queue.
func (s *Shard) putQueue(c *Conn) {
	c.endLowWaits()
	s.free.put(c.out)
	c.out = nil
}

// minRest is the smallest rest of a partly sent frame that goes to the kernel
// without a bound of unsent bytes.
const minRest = 64 << 10

// sendRest writes the rest of a long, partly sent frame without the bound of
// unsent bytes, because nothing can replace or drop that rest: with the bound,
// several wake-ups for one frame made 1 MiB to one client take 1.6 ms of CPU
// instead of 1.0. The last write has ended early. It reports whether c has
// nothing left to send.
func (c *Conn) sendRest() (done bool) {
	s := c.shard
	q, bound := c.out, s.eng.cfg.UnsentBytes
	if bound == 0 || q.current == nil || len(q.current.data)-q.sent < minRest {
		return false
	}
	if !s.driver.boundUnsent(c, 0) {
		return false
	}
	defer func() { s.driver.boundUnsent(c, bound) }()
	return c.transport().writeRest(c)
}

// weighSealed adds the bytes that wait in the transport to the memory of c's
// queue.
func (c *Conn) weighSealed() {
	growth := c.transport().queued() - c.out.sealed
	c.out.sealed += growth
	c.out.cost += growth
	if c.is(blocked) {
		c.shard.reweigh(c, growth)
	}
}
