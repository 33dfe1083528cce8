package engine

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// ErrNoDescriptors is returned by AwaitAdmission while the process has no
// descriptors to spare.
var ErrNoDescriptors = errors.New("ws: no descriptors left")

const (
	// restInterval is the time between two looks at the descriptors while
	// connections wait for one.
	restInterval = 10 * time.Millisecond
	// episodeGap separates two episodes of waiting: connections that wait again
	// within it belong to the same one.
	episodeGap = 10 * time.Second
)

// acceptGate decides when a connection is accepted. gnet ends all loops when
// accept finds no descriptor, so a loop's epoll holds the loop's listener only
// while connections wait on it, descriptors are left, and the pace allows one
// more. A listener is in one of these states:
//
//	idle     no connection waits; the gate's own epoll watches the listener
//	waiting  connections wait for descriptors or a permit, in the kernel's backlog
//	armed    it is in the loop's epoll, and the loop may accept some (its credit)
//	by hand  descriptors are scarce, and the gate accepts one itself
//
// Connections that are accepted already (HandleUpgrade, acceptFrom) need permits
// at the same pace. The gate gives permits in the order of requests, to the
// listeners and to HandleUpgrade alternately.
//
// Safe for concurrent use.
type acceptGate struct {
	// Immutable after start.
	eng   *Engine
	watch *listenWatch // nil with a simulated network without a pace
	ended chan struct{}
	hands sync.WaitGroup // acceptByHand
	over  chan struct{}  // closed when the gate gives no permits any more

	mu        sync.Mutex
	listeners []*loopListener // guarded by mu, like all fields below
	armed     int             // listeners that are armed
	queues    [2]list.List    // of *permit, by permitKind
	next      permitKind      // kind of the queue that is served first
	pace      pace
	usage     descriptorUsage
	rests     [2]rest // by restReason
	wakeTime  time.Time
	closed    bool // over is closed
	ending    bool // the loops end
	unlogged  []logRecord
}

// logRecord is a message that waits for the release of a lock, because a log
// handler is user code.
type logRecord struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// logLocked logs the text when the lock is released.
func (g *acceptGate) logLocked(level slog.Level, text string, attrs ...slog.Attr) {
	g.unlogged = append(g.unlogged, logRecord{level, text, attrs})
}

// unlock releases mu and logs the records. Callers that may log under mu
// release it this way.
func (g *acceptGate) unlock() {
	records := g.unlogged
	g.unlogged = nil
	g.mu.Unlock()
	for _, r := range records {
		g.eng.cfg.Logger.LogAttrs(context.Background(), r.level, r.text, r.attrs...)
	}
}

// permitKind is the kind of a request for a permit.
type permitKind uint8

const (
	permitAccept  permitKind = iota // of a listener; it needs a descriptor
	permitUpgrade                   // of HandleUpgrade, whose connection has one
)

// permit is the wait of one connection for the gate. At its end listener is
// armed, or granted is closed.
type permit struct {
	listener *loopListener
	granted  chan struct{}
	element  *list.Element // in its queue; nil once granted. Guarded by acceptGate.mu
}

func newAcceptGate(e *Engine) *acceptGate {
	g := &acceptGate{eng: e, ended: make(chan struct{}), over: make(chan struct{})}
	g.pace = newPace(e.cfg.AdmissionPerSecond, e.cfg.AdmissionBurst)
	g.usage.fixed = e.cfg.MaxDescriptors
	return g
}

// start begins to watch. It runs before the loops.
func (g *acceptGate) start() (err error) {
	g.usage.open()
	if len(g.eng.loops) == 0 && g.pace.perSecond == 0 {
		close(g.ended)
		return nil
	}
	if g.watch, err = newListenWatch(); err != nil {
		return err
	}
	go g.run() // owned by Engine.Run: stop ends it and waits
	return nil
}

// stop ends the gate. The loops have ended.
func (g *acceptGate) stop() {
	g.end()
	if g.watch != nil {
		g.watch.close()
	}
	<-g.ended
	g.hands.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.usage.close()
}

// end makes the gate leave the loops' epolls alone, because their descriptors
// may soon be closed and reused.
func (g *acceptGate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = true
	g.closeLocked()
}

func (g *acceptGate) closeLocked() {
	if !g.closed {
		g.closed = true
		close(g.over)
	}
	for i := range g.queues {
		g.queues[i].Init()
	}
	now := time.Now()
	for i := range g.rests {
		g.rests[i].set(false, now)
	}
}

// run serves the gate until watch is closed.
func (g *acceptGate) run() {
	defer close(g.ended)
	for {
		ready, ok := g.watch.wait()
		if !ok {
			return
		}
		g.look(ready)
	}
}

// look serves the listeners on which connections wait, and the work that is
// due.
func (g *acceptGate) look(ready []int) {
	g.mu.Lock()
	defer g.unlock()
	if g.closed {
		g.watch.wakeAt(time.Time{})
		return
	}
	now := time.Now()
	if !g.wakeTime.IsZero() && !now.Before(g.wakeTime) {
		g.wakeTime = time.Time{}
		g.watch.wakeAt(time.Time{})
	}
	for _, i := range ready {
		if i < len(g.listeners) && g.listeners[i].state == listenerIdle {
			g.listeners[i].state = listenerWaiting
			g.enqueueLocked(&g.listeners[i].permit, permitAccept)
		}
	}
	g.checkArmedLocked(now)
	g.serveLocked(now)
}

func (g *acceptGate) enqueueLocked(p *permit, kind permitKind) {
	p.element = g.queues[kind].PushBack(p)
}

// await waits for a permit. It returns ErrStopped when the gate gives no permits
// any more.
func (g *acceptGate) await(ctx context.Context, kind permitKind) error {
	p := &permit{granted: make(chan struct{})}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrStopped
	}
	g.enqueueLocked(p, kind)
	g.serveLocked(time.Now())
	g.unlock()
	select {
	case <-p.granted:
		return nil
	case <-g.over:
		return ErrStopped
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.unlock()
	if p.element == nil {
		return nil
	}
	if !g.closed {
		g.queues[kind].Remove(p.element)
		g.serveLocked(time.Now())
	}
	return ctx.Err()
}

// serveLocked gives permits, as far as descriptors and pace allow, and sets the
// time of the next look.
func (g *acceptGate) serveLocked(now time.Time) {
	if g.closed {
		return
	}
	var wait time.Duration // until the pace allows one more
	var short bool
	for {
		accepting := g.queues[permitAccept].Len() > 0
		short = accepting && g.usage.short(now, g.outstandingLocked())
		kind, ok := g.chooseLocked(accepting && !short)
		if !ok {
			break
		}
		if wait = g.pace.take(now); wait > 0 {
			break
		}
		g.grantLocked(kind)
	}
	if g.rests[restDescriptors].set(short, now) {
		g.logLocked(slog.LevelWarn, "ws: descriptors run out, new connections wait",
			slog.Int("descriptors", g.usage.used), slog.Int("max_descriptors", g.usage.limit))
	}
	g.rests[restPace].set(wait > 0, now)
	g.scheduleLocked(now, short, wait)
}

// chooseLocked returns the kind whose permit comes next, or the other one if none of
// that kind waits.
func (g *acceptGate) chooseLocked(accepting bool) (permitKind, bool) {
	upgrading := g.queues[permitUpgrade].Len() > 0
	switch {
	case accepting && (g.next == permitAccept || !upgrading):
		return permitAccept, true
	case upgrading:
		return permitUpgrade, true
	}
	return 0, false
}

// grantLocked gives the first permit of a queue.
func (g *acceptGate) grantLocked(kind permitKind) {
	g.next = permitUpgrade - kind
	p := g.queues[kind].Remove(g.queues[kind].Front()).(*permit)
	p.element = nil
	if p.listener == nil {
		close(p.granted)
		if kind == permitAccept {
			g.usage.granted++
		}
		return
	}
	if g.usage.left-g.usage.granted < scarceDescriptors {
		g.acceptByHand(p.listener)
		return
	}
	credit := 1
	if g.pace.perSecond == 0 {
		credit = min(max(g.usage.left/perCredit, 1), maxCredit)
	}
	if err := p.listener.arm(credit); err != nil {
		g.logLocked(slog.LevelError, "ws: accepting", slog.Any("error", err))
	}
	g.armed++
	g.usage.granted += credit
}

// scheduleLocked sets the time of run's next look.
func (g *acceptGate) scheduleLocked(now time.Time, short bool, wait time.Duration) {
	if g.watch == nil {
		return
	}
	next := time.Duration(-1)
	sooner := func(d time.Duration) {
		if next < 0 || d < next {
			next = d
		}
	}
	if wait > 0 {
		sooner(max(wait, g.pace.least()))
	}
	if short {
		sooner(restInterval)
	}
	if g.armed > 0 {
		sooner(g.usage.interval())
	}
	if next < 0 {
		return
	}
	at := now.Add(next)
	if g.wakeTime.IsZero() || at.Before(g.wakeTime) {
		g.wakeTime = at
		g.watch.wakeAt(at)
	}
}

// admitPeer decides whether a peer that a loop has accepted comes in, before it has a
// Conn. It is the one door of these peers, as AwaitAdmission is for those of net/http.
// byUs is true for a socket that the gate or Serve has accepted. A refused peer is
// answered with the returned error.
func (e *Engine) admitPeer(l *gnetLoop, fd int, byUs bool) *codec.RequestError {
	switch {
	case !byUs && !e.accept.accepted(l) && fd >= e.accept.limit():
		return errTooMany
	case e.draining.Load():
		return errStopping
	}
	return nil
}

// AwaitAdmission waits until the pace allows one more connection. It returns
// ErrNoDescriptors at once if no descriptor is left for it, ErrStopped once the
// engine is stopping, or the error of ctx.
func (e *Engine) AwaitAdmission(ctx context.Context) error {
	g := e.accept
	g.mu.Lock()
	short := g.usage.short(time.Now(), g.outstandingLocked())
	g.mu.Unlock()
	switch {
	case short:
		return ErrNoDescriptors
	case g.watch == nil || g.pace.perSecond == 0:
		return nil
	}
	return g.await(ctx, permitUpgrade)
}

// limit returns the exclusive bound of a connection's descriptor, for
// connections of HandleUpgrade and where the loops' epolls are unknown.
func (g *acceptGate) limit() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.usage.limit == 0 {
		g.usage.look(time.Now(), g.outstandingLocked())
	}
	return g.usage.limit
}

// exhausted records that one of our own accepts found no descriptor or no
// memory, and waits for restInterval.
func (g *acceptGate) exhausted(err error) {
	g.mu.Lock()
	begins := g.rests[restDescriptors].set(true, time.Now())
	g.mu.Unlock()
	if begins {
		g.eng.cfg.Logger.Warn("ws: descriptors run out, new connections wait", slog.Any("error", err))
	}
	g.rest()
}

// rest waits for restInterval, or until the gate gives no permits any more.
func (g *acceptGate) rest() {
	select {
	case <-g.over:
	case <-time.After(restInterval):
	}
}
