package engine

import (
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

// DeliverInLoop queues the shared frame f on c, and reports whether it was
// taken: it is dropped, and counted, if c's queue is at a bound and its socket
// is full. It writes only if the queue is at a bound.
func (c *Conn) DeliverInLoop(f *Frame, lane Lane) bool {
	return c.shard.enqueueInLoop(c, f, lane)
}

// enqueueInLoop is DeliverInLoop.
func (s *Shard) enqueueInLoop(c *Conn, f *Frame, lane Lane) bool {
	s.mustBeInLoop()
	if !c.takesDataInLoop() {
		return false
	}
	if c.reserve(len(f.data)) {
		s.pushInLoop(c, f, lane)
		return true
	}
	return s.writeThrough(c, f, lane)
}

// writeThrough queues f on a connection whose queue is at a bound, and writes
// at once: neither a batch of fan-outs nor messages that are still on their way
// through the inbox make a client that reads lose one. Only a connection whose
// socket is full drops f. So a queue holds at most one frame beyond its bounds.
func (s *Shard) writeThrough(c *Conn, f *Frame, lane Lane) bool {
	s.flush(c)
	if c.blocked || !c.takesDataInLoop() {
		s.drop()
		return false
	}
	c.queued.Add(1<<queuedShift | uint64(len(f.data)))
	s.pushInLoop(c, f, lane)
	s.flush(c)
	return true
}

// pushInLoop queues a frame whose room is reserved, or that needs none.
func (s *Shard) pushInLoop(c *Conn, f *Frame, lane Lane) {
	s.endReplyOf(c) // keep the order of what is already in the batch
	if c.out == nil {
		c.out = s.getQueue()
	}
	c.out.push(f, lane)
	if !c.blocked {
		s.markDirty(c)
	}
}

// pushControl queues a ping or pong. At most one of a kind waits: a client
// that floods pings and reads nothing is owed only the latest pong
// (RFC 6455 section 5.5.3).
func (s *Shard) pushControl(c *Conn, op codec.Opcode, payload []byte) {
	if s.reply.conn == c && c.out == nil {
		s.reply.buf = codec.AppendFrame(s.reply.buf, op, payload)
		return
	}
	f := &Frame{data: codec.NewFrame(op, payload), exempt: true}
	if c.out != nil {
		lane := &c.out.lanes[LaneControl]
		for i, queued := range lane.frames[lane.head:] {
			if queued.data[0] == f.data[0] {
				lane.frames[lane.head+i] = f
				return
			}
		}
	}
	s.pushInLoop(c, f, LaneControl)
}

// pushFirst queues bytes that go out before any frame: the handshake's answer.
func (s *Shard) pushFirst(c *Conn, data []byte) {
	c.out = s.getQueue()
	c.out.current = &Frame{data: data, exempt: true}
	s.markDirty(c)
}

// pushLast queues the close frame, which goes behind everything.
func (s *Shard) pushLast(c *Conn, data []byte) {
	s.pushInLoop(c, &Frame{data: data, exempt: true}, LaneNormal)
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
		iov, total := c.out.gather(s.iov[:0], maxWriteBytes)
		n, err := writev(int(c.fd), iov)
		clear(iov)
		s.stats.writes.add(1)
		if n > 0 {
			s.stats.bytesOut.add(uint64(n))
			frames, bytes := c.out.advance(n)
			c.unreserve(frames, bytes)
			s.stats.messagesOut.add(uint64(frames))
		}
		switch {
		case errors.Is(err, unix.EAGAIN) || (err == nil && n < total):
			s.block(c)
		case err != nil && !errors.Is(err, unix.EINTR):
			s.doom(c, err)
			s.eng.handler.OnWriteError()
		case c.out.empty():
			s.putQueue(c)
			s.sentAll(c)
		}
	}
}

// block makes c wait until its socket is writable again.
func (s *Shard) block(c *Conn) {
	c.blocked = true
	s.stats.blocked.add(1)
	if err := s.eng.writable.arm(c); err != nil {
		s.doom(c, err)
	}
}

// writableTask tells the loop that a connection's socket is writable.
type writableTask Conn

func (t *writableTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if c.blocked && c.state.Load() != stateClosed {
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
	conn   *Conn // nil outside of a read
	buf    []byte
	frames int
}

// replyInLoop appends a reply to the batch if c is the connection being read,
// nothing is queued before it and nothing that this loop has published is
// still on its way.
func (s *Shard) replyInLoop(c *Conn, op codec.Opcode, payload []byte) bool {
	if s.reply.conn != c || c.out != nil || c.state.Load() != stateOpen || !s.caughtUpInLoop() {
		return false
	}
	s.reply.buf = codec.AppendFrame(s.reply.buf, op, payload)
	s.reply.frames++
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
	c, buf, frames := s.reply.conn, s.reply.buf, s.reply.frames
	s.reply.frames = 0
	if cap(s.reply.buf) > 4*maxReplyBytes {
		s.reply.buf = nil
	} else {
		s.reply.buf = s.reply.buf[:0]
	}
	if len(buf) == 0 || c.doomed || c.state.Load() == stateClosed {
		return
	}
	n, err := write(int(c.fd), buf)
	s.stats.writes.add(1)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		s.doom(c, err)
		s.eng.handler.OnWriteError()
		return
	}
	n = max(n, 0)
	s.stats.bytesOut.add(uint64(n))
	if n < len(buf) {
		frames = max(0, frames-1) // the rest counts as one message when it is sent
		rest := append([]byte(nil), buf[n:]...)
		c.queued.Add(1<<queuedShift | uint64(len(rest)))
		c.out = s.getQueue()
		c.out.current = &Frame{data: rest} // it may begin within a frame: nothing goes before it
		s.block(c)
	}
	s.stats.messagesOut.add(uint64(frames))
}
