package engine

import "golang.org/x/sys/unix"

// What the tests in package engine_test see of the internals.

type (
	Wheel = wheel
	Queue = queue
)

func NewRing[T any](size int) *Ring[T] { return &Ring[T]{newRing[T](size)} }

// Ring opens ring.
type Ring[T any] struct{ r *ring[T] }

func (r *Ring[T]) Acquire() bool  { return r.r.acquire() }
func (r *Ring[T]) Restore(n int)  { r.r.restore(n) }
func (r *Ring[T]) Put(v T) uint64 { return r.r.put(v) }
func (r *Ring[T]) Pop() (T, bool) { return r.r.pop() }
func (r *Ring[T]) Len() int       { return r.r.len() }
func (r *Ring[T]) Cap() int       { return len(r.r.slots) }

// FD returns the connection's descriptor.
func (c *Conn) FD() int { return int(c.fd) }

// NewSendTask is a send that is already on its way to the loop.
func NewSendTask(c *Conn, f *Frame) Task {
	c.reserve(len(f.data))
	return &sendTask{conn: c, frame: f, lane: LaneNormal}
}

// Doom closes a connection's socket from its loop.
func (s *Shard) Doom(c *Conn) { s.doom(c, nil) }

// Generation returns the generation of the connection's descriptor.
func (c *Conn) Generation() uint32 { return c.generation }

// Schedule and the other methods open wheel.
func (w *wheel) Schedule(c *Conn, deadline uint32)                  { w.schedule(c, deadline) }
func (w *wheel) Cancel(c *Conn)                                     { w.cancel(c) }
func (w *wheel) Advance(now uint32, fire func(*Conn))               { w.advance(now, fire) }
func (w *wheel) Each(fn func(*Conn))                                { w.each(fn) }
func (w *wheel) Size() int                                          { return w.size }
func (q *queue) Push(f *Frame, lane Lane)                           { q.push(f, lane) }
func (q *queue) Empty() bool                                        { return q.empty() }
func (q *queue) Advance(n int) (frames, bytes int)                  { return q.advance(n) }
func (q *queue) Gather(iov []unix.Iovec, n int) ([]unix.Iovec, int) { return q.gather(iov, n) }
func (q *queue) Pending() (frames, bytes int)                       { return q.pending() }

// ExemptFrame returns a frame that does not count.
func ExemptFrame(b []byte) *Frame { return &Frame{data: b, exempt: true} }

// RawFrame returns a frame of these bytes.
func RawFrame(b []byte) *Frame { return &Frame{data: b} }
