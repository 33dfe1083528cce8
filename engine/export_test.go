package engine

import (
	"context"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// The internals that the tests in package engine_test use.

type (
	Wheel = wheel
	Queue = queue
)

func NewRing[T any](size int) *Ring[T] { return &Ring[T]{newRing[T](size)} }

// Ring gives access to ring.
type Ring[T any] struct{ r *ring[T] }

func (r *Ring[T]) Acquire() bool  { return r.r.acquire() }
func (r *Ring[T]) Restore(n int)  { r.r.restore(n) }
func (r *Ring[T]) Put(v T) uint64 { return r.r.put(v) }
func (r *Ring[T]) Pop() (T, bool) { return r.r.pop() }
func (r *Ring[T]) Len() int       { return r.r.len() }
func (r *Ring[T]) Cap() int       { return len(r.r.slots) }

// MaxHelloBytes bounds a ClientHello in FindHello.
const MaxHelloBytes = maxHelloBytes

func FindHello(b []byte) (whole bool, err error) {
	n, err := findHello(b)
	return n > 0, err
}

// FindHelloEnd returns the length of the ClientHello.
func FindHelloEnd(b []byte) (int, error) { return findHello(b) }

// HandshakesUnderWay is the number of TLS handshakes in progress for each one
// that may compute.
const HandshakesUnderWay = handshakesUnderWay

// FD returns the connection's descriptor.
func (c *Conn) FD() int { return int(c.fd) }

// AdmitArrival decides on a peer that a loop has accepted.
func (e *Engine) AdmitArrival(fd int, peer *net.TCPAddr) bool {
	return e.admitArrival(fd, peer, new(arrival))
}

// Lazy reports whether the connection has a lazy state.
func (c *Conn) Lazy() bool { return c.lazy.Load() != nil }

// GnetFields returns the fields of gnet's connection that attach clears, and
// whether they were found.
func (c *Conn) GnetFields() (remote, local net.Addr, safeContext any, known bool) {
	safeContext = c.gc.(gnet.Conn).SafeContext()
	return c.gc.RemoteAddr(), c.gc.LocalAddr(), safeContext, c.shard.driver.(*gnetLoop).connFields.known
}

// NewSendTask returns a send in transit to the loop.
func NewSendTask(c *Conn, f *Frame) Task {
	return &sendTask{conn: c, frame: f, reserved: c.reserve(f)}
}

// Waiting returns the number of producers that wait for space in the shard's
// ring.
func (s *Shard) Waiting() int { return int(s.in.waiters.Load()) }

// Line is a full ring with producers that wait for it.
type Line struct {
	in    *inbox
	first []*waiter // the waiters in their order, from index next
	next  int
}

// NewLine returns a line of n producers.
func NewLine(n int) *Line {
	l := &Line{in: newInbox(1)}
	l.in.ring.acquire()
	for range n {
		w := &waiter{granted: make(chan struct{}, 1)}
		l.in.enlist(w)
		l.first = append(l.first, w)
	}
	return l
}

// Grant gives a credit to the first producer, which then goes to the end.
func (l *Line) Grant() {
	l.in.release(1)
	w := l.first[l.next]
	<-w.granted
	l.in.enlist(w)
	l.next = (l.next + 1) % len(l.first)
}

// Acquire waits for a credit at the end of the line.
func (l *Line) Acquire(ctx context.Context) error { return l.in.acquire(patience{ctx: ctx}) }

// Len returns the number of producers in the line.
func (l *Line) Len() int { return int(l.in.waiters.Load()) }

// Release gives a credit to the first producer.
func (l *Line) Release() { l.in.release(1) }

// PostUrgent posts a task that keeps no order with others.
func (s *Shard) PostUrgent(t Task) { s.postUrgent(t) }

// CloseLater closes a connection's socket from its loop.
func (s *Shard) CloseLater(c *Conn) { s.closeLater(c, nil) }

// Generation returns the generation of the connection's descriptor.
func (c *Conn) Generation() uint32 { return c.generation }

// PresenceInLoop returns the time that counts as silence, in ticks.
func (s *Shard) PresenceInLoop() uint32 { return s.presence.ticks }

// OverdueInLoop returns the number of connections with an overdue pong.
func (s *Shard) OverdueInLoop() int { return len(s.overdue) }

// Presence gives access to presence, without a shard.
type Presence struct{ p presence }

func (p *Presence) Advance(now, most uint32) (away bool) { return p.p.advance(now, most) }
func (p *Presence) Ticks() uint32                        { return p.p.ticks }

// Progressed compares two positions up to which a peer has read.
func Progressed(before, after int64, knownBefore, knownAfter bool, pings uint32) bool {
	return progress{after, knownAfter}.since(progress{before, knownBefore}, pings)
}

// Schedule and the other methods give access to wheel.
func (w *wheel) Schedule(c *Conn, deadline uint32) { w.schedule(c, deadline) }
func (w *wheel) Cancel(c *Conn)                    { w.cancel(c) }
func (w *wheel) Advance(now uint32, fire func(*Conn)) {
	w.advance(now, func(c *Conn) bool { fire(c); return true })
}

func (w *wheel) AdvanceSome(now uint32, fire func(*Conn) bool) (done bool) {
	return w.advance(now, fire)
}
func (w *wheel) Each(fn func(*Conn))                        { w.each(fn) }
func (w *wheel) Size() int                                  { return w.size }
func (q *queue) Push(f *Frame)                              { q.push(f) }
func (q *queue) Empty() bool                                { return q.empty() }
func (q *queue) Cost() int                                  { return q.cost }
func (q *queue) Evict(lane Lane, oldest bool) *Frame        { return q.evict(lane, oldest) }
func (q *queue) Purge(now time.Duration, gone func(*Frame)) { q.purge(now, gone) }
func (q *queue) Clear(gone func(*Frame))                    { q.clear(gone) }
func (q *queue) Reset()                                     { q.reset(keptFrames) }
func (q *queue) Len(lane Lane) int                          { return q.lanes[lane].len() }

func (q *queue) NoteAges(now, spacing uint32) { q.noteAges(now, spacing) }
func (q *queue) NoteBegun(now uint32)         { q.noteBegun(now, false) }
func (q *queue) Age(now uint32) uint32        { return q.age(now) }

// Replace is replace for a frame that fits everywhere.
func (q *queue) Replace(f *Frame) (old *Frame) {
	return q.replace(f, func(*Frame) bool { return true })
}

// Advance returns the sums over the lanes.
func (q *queue) Advance(n int) (frames, bytes int) {
	for _, t := range q.advance(n) {
		frames += t.frames
		bytes += t.bytes
	}
	return frames, bytes
}
func (q *queue) Gather(iov []unix.Iovec, n int) ([]unix.Iovec, int) { return q.gather(iov, n) }

// ControlFrame returns a control frame of these bytes.
func ControlFrame(b []byte) *Frame { return &Frame{data: b, lane: LaneControl, exempt: true} }

// RawFrame returns a frame of these bytes.
func RawFrame(b []byte, h Handling) *Frame {
	f := &Frame{data: b}
	f.handle(h)
	return f
}

// ExpiringAt returns f with that time of expiry.
func (f *Frame) ExpiringAt(at time.Duration) *Frame {
	f.expires = at
	return f
}

// Deflated returns f compressed for the largest window.
func (f *Frame) Deflated(z *codec.Deflater) *Frame { return f.deflated(z, codec.MaxWindowBits) }

// Data returns the encoded frame, and Cost its memory.
func (f *Frame) Data() []byte { return f.data }
func (f *Frame) Cost() int    { return f.cost() }

// The fields that Handling sets.
func (f *Frame) Lane() Lane             { return f.lane }
func (f *Frame) Key() string            { return f.key }
func (f *Frame) Scope() *Drops          { return f.scope }
func (f *Frame) Expires() time.Duration { return f.expires }

// KeptQueues is the number of free queues that all shards together keep for ever.
const KeptQueues = keptQueues

// FreeQueuesInLoop returns the number of free queues of the shard.
func (s *Shard) FreeQueuesInLoop() int { return len(s.free.queues) }

// Readiness reports whether the epoll of the shard's loop was found, and
// returns the number of its listening sockets.
func (s *Shard) Readiness() (known bool, listeners int) {
	r := s.driver.(*gnetLoop).ready.Load()
	return r.known(), len(r.listeners)
}

// NewPace returns a token bucket.
func NewPace(perSecond float64, burst int) *Pace { return &Pace{newPace(perSecond, burst)} }

// Pace gives access to pace.
type Pace struct{ p pace }

func (p *Pace) Take(now time.Time) time.Duration { return p.p.take(now) }

// BudgetHeld returns the memory that counts against Config.QueueBudget.
func (e *Engine) BudgetHeld() int64 { return e.blockedMemory.Load() }

// DirtyInLoop returns the number of connections with frames to write.
func (s *Shard) DirtyInLoop() int { return s.dirty.len() }

// MaxReplaying is maxReplaying.
const MaxReplaying = maxReplaying

// DirtyList gives access to dirtyList.
type DirtyList struct{ d dirtyList }

func (l *DirtyList) Push(c *Conn, since uint64) { l.d.push(c, since) }
func (l *DirtyList) Pop() *Conn                 { return l.d.pop() }
func (l *DirtyList) Since() uint64              { return l.d.since() }
func (l *DirtyList) Len() int                   { return l.d.len() }
func (l *DirtyList) Cap() int                   { return len(l.d.ring) }

// WalkStep returns the next connection of a walk, or nil at its end.
func (w *wheel) WalkStep(begin bool) *Conn {
	if begin {
		w.walk.begin(w)
	}
	return w.walk.step(w)
}

// Come adds a new connection to the walk.
func (w *wheel) Come(c *Conn) { w.walk.setVisited(c) }

// Publish posts t to each of targets, or to none.
func (e *Engine) Publish(ctx context.Context, t Task, targets []*Shard) error {
	r, err := e.ReserveAll(ctx, targets)
	if err == nil {
		r.Post(t)
	}
	return err
}

// Drain is a drain that a test runs in steps.
type Drain struct{ *drain }

// NewDrain returns a drain that closes connections with end.
func NewDrain(end CloseInfo) *Drain { return &Drain{newDrain(end)} }

// Step closes up to most connections of s, and reports whether none is left.
func (d *Drain) Step(s *Shard, most int) (done bool) { return d.step(s, most) }

// EachInLoop calls fn for every connection of s that takes data. fn may queue
// frames on it.
func (s *Shard) EachInLoop(fn func(*Conn)) {
	s.wheel.each(func(c *Conn) {
		if c.takesDataInLoop() {
			fn(c)
		}
	})
}

// Arrivals opens arrivals.
type Arrivals struct{ a arrivals }

func (a *Arrivals) Note(last, now uint32)            { a.a.note(last, now) }
func (a *Arrivals) Of(generation, now uint32) uint32 { return a.a.of(generation, now) }
func (a *Arrivals) Len() int                         { return len(a.a.list) }

// Stalls opens the watchdog and the loops of an engine that does not run, at times that the
// test chooses.
type Stalls struct{ e *Engine }

func NewStalls(cfg Config, h Handler, o Observer) *Stalls { return &Stalls{New(cfg, h, o)} }

func (s *Stalls) Interval() time.Duration           { return s.e.watch.interval }
func (s *Stalls) Begin(loop int, now time.Duration) { s.e.shards[loop].work.start(now) }
func (s *Stalls) End(loop int, now time.Duration)   { s.e.shards[loop].work.stop(now) }
func (s *Stalls) Look(now time.Duration)            { s.e.watch.look(now) }
func (s *Stalls) Stats(loop int) ShardStats         { return s.e.shards[loop].Stats() }
func (s *Stalls) Wait()                             { s.e.watch.reports.Wait() }

// LoopWork opens loopWork.
type LoopWork struct{ loopWork }

func NewLoopWork() *LoopWork { return &LoopWork{loopWork{limit: noLimit}} }

func (w *LoopWork) BeginAt(now time.Duration) { w.beginAt(now) }
func (w *LoopWork) Begin()                    { w.begin() }
func (w *LoopWork) End()                      { w.end() }
func (w *LoopWork) Total() time.Duration      { return w.total() }
func (w *LoopWork) Running() time.Duration    { return w.running() }

// Monotonic is monotonic.
var Monotonic = monotonic

// MaxGap is maxGap.
const MaxGap = maxGap

// GoroutineProfile is goroutineProfile.
var GoroutineProfile = goroutineProfile

// BeginSend reserves space for a text frame, like a sender off the loops. The returned
// function posts the frame.
func (c *Conn) BeginSend(payload []byte) (post func()) {
	f := NewFrame(codec.OpText, payload, Handling{})
	if !c.reserve(f) || c.confirm(f) != nil {
		panic("no space")
	}
	return func() { c.shard.Post(&sendTask{conn: c, frame: f, reserved: true}) }
}
