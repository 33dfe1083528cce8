package engine

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrNoDescriptors is returned by AwaitAdmission while the process has no
// descriptors to spare.
var ErrNoDescriptors = errors.New("ws: no descriptors left")

const (
	// restInterval is the time between two looks at the descriptors while
	// connections wait for some.
	restInterval = 10 * time.Millisecond
	// episodeGap separates two episodes of waiting: connections that wait again
	// within it belong to the same one.
	episodeGap = 10 * time.Second
)

// acceptGate decides when a connection is let in. gnet ends all loops when
// accept finds no descriptor, so a loop's epoll has the loop's listener only
// while connections wait on it, descriptors are left, and the pace allows one
// more. A listener is one of these:
//
//	idle     no connection waits; the gate's own epoll watches the listener
//	waiting  connections wait for descriptors or their turn, in the kernel's backlog
//	armed    the loop's epoll has it, and the loop may accept some (its credit)
//	by hand  descriptors are scarce, and the gate accepts one by itself
//
// Those who have accepted already (HandleUpgrade, acceptFrom) take their turns at the same pace. Turns are given in the order in
// which they were asked for, to the listeners and to HandleUpgrade alternately.
//
// Safe for concurrent use.
type acceptGate struct {
	// Immutable after start.
	eng   *Engine
	watch *listenWatch // nil with a Memory if nobody can wait
	ended chan struct{}
	hands sync.WaitGroup // acceptByHand
	over  chan struct{}  // closed when nobody is let in any more

	mu        sync.Mutex
	listeners []*loopListener // guarded by mu, as all that follows
	armed     int             // listeners that are armed
	queues    [2]list.List    // of *turn, by turnKind
	next      turnKind        // whose queue is served first
	pace      pace
	usage     descriptorUsage
	rests     [2]rest // by restReason
	wakeTime  time.Time
	closed    bool // over is closed
	ending    bool // the loops end
	unlogged  []logRecord
}

// logRecord is a message that waits for the end of a lock: a log handler is user
// code.
type logRecord struct {
	level slog.Level
	text  string
	attrs []slog.Attr
}

// logLocked logs when the lock is released.
func (g *acceptGate) logLocked(level slog.Level, text string, attrs ...slog.Attr) {
	g.unlogged = append(g.unlogged, logRecord{level, text, attrs})
}

// unlock releases mu. All that may log with it held release it so.
func (g *acceptGate) unlock() {
	records := g.unlogged
	g.unlogged = nil
	g.mu.Unlock()
	for _, r := range records {
		g.eng.cfg.Logger.LogAttrs(context.Background(), r.level, r.text, r.attrs...)
	}
}

// turnKind says who asks for a turn.
type turnKind uint8

const (
	turnAccept  turnKind = iota // a listener; it needs a descriptor
	turnUpgrade                 // HandleUpgrade, whose connection has one
)

// turn is the wait for one connection to be let in: listener is armed, or
// granted is closed.
type turn struct {
	listener *loopListener
	granted  chan struct{}
	element  *list.Element // in its queue; nil once it is granted. Guarded by acceptGate.mu
}

func newAcceptGate(e *Engine) *acceptGate {
	g := &acceptGate{eng: e, ended: make(chan struct{}), over: make(chan struct{})}
	g.pace = newPace(e.cfg.AdmitPerSecond, e.cfg.AdmitBurst)
	g.usage.fixed = e.cfg.MaxDescriptors
	return g
}

// start begins to watch. It is called before the loops run.
func (g *acceptGate) start() (err error) {
	g.usage.open()
	if g.eng.cfg.Memory != nil && g.pace.perSecond == 0 {
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

// end makes sure that the loops' epolls are not touched from here on: their
// descriptors may be closed soon, and be somebody else's.
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

// look serves the listeners on which connections wait, and all that is due.
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
			g.enqueueLocked(&g.listeners[i].turn, turnAccept)
		}
	}
	g.checkArmedLocked(now)
	g.serveLocked(now)
}

func (g *acceptGate) enqueueLocked(t *turn, kind turnKind) {
	t.element = g.queues[kind].PushBack(t)
}

// await waits for a turn. It returns ErrStopped when nobody is let in any more.
func (g *acceptGate) await(ctx context.Context, kind turnKind) error {
	t := &turn{granted: make(chan struct{})}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrStopped
	}
	g.enqueueLocked(t, kind)
	g.serveLocked(time.Now())
	g.unlock()
	select {
	case <-t.granted:
		return nil
	case <-g.over:
		return ErrStopped
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.unlock()
	if t.element == nil {
		return nil
	}
	if !g.closed {
		g.queues[kind].Remove(t.element)
		g.serveLocked(time.Now())
	}
	return ctx.Err()
}

// serveLocked gives turns to those who wait, as far as descriptors and pace
// allow, and sets the time of the next look.
func (g *acceptGate) serveLocked(now time.Time) {
	if g.closed {
		return
	}
	var wait time.Duration // until the pace allows one more
	var short bool
	for {
		accepting := g.queues[turnAccept].Len() > 0
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
			slog.Int("used", g.usage.used), slog.Int("limit", g.usage.limit))
	}
	g.rests[restPace].set(wait > 0, now)
	g.scheduleLocked(now, short, wait)
}

// chooseLocked returns the kind whose turn it is, the other one if that has
// nobody who waits.
func (g *acceptGate) chooseLocked(accepting bool) (turnKind, bool) {
	upgrading := g.queues[turnUpgrade].Len() > 0
	switch {
	case accepting && (g.next == turnAccept || !upgrading):
		return turnAccept, true
	case upgrading:
		return turnUpgrade, true
	}
	return 0, false
}

// grantLocked gives the first of a queue its turn.
func (g *acceptGate) grantLocked(kind turnKind) {
	g.next = turnUpgrade - kind
	t := g.queues[kind].Remove(g.queues[kind].Front()).(*turn)
	t.element = nil
	if t.listener == nil {
		close(t.granted)
		if kind == turnAccept {
			g.usage.granted++
		}
		return
	}
	if g.usage.left-g.usage.granted < scarceDescriptors {
		g.acceptByHand(t.listener)
		return
	}
	credit := 1
	if g.pace.perSecond == 0 {
		credit = min(max(g.usage.left/perCredit, 1), maxCredit)
	}
	if err := t.listener.arm(credit); err != nil {
		g.logLocked(slog.LevelError, "ws: accepting", slog.Any("error", err))
	}
	g.armed++
	g.usage.granted += credit
}

// scheduleLocked sets the time at which run looks next.
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

// AwaitAdmission waits until the pace allows one more connection. It returns
// ErrNoDescriptors at once if there are none for it, ErrStopped once the engine
// is stopping, or the error of ctx.
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
	return g.await(ctx, turnUpgrade)
}

// limit is the number that a connection's descriptor must be below where the
// loops' epolls are unknown, and for a connection of HandleUpgrade.
func (g *acceptGate) limit() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.usage.limit == 0 {
		g.usage.look(time.Now(), g.outstandingLocked())
	}
	return g.usage.limit
}

// exhausted notes that an accept of our own found no descriptor or no memory,
// and waits for a while.
func (g *acceptGate) exhausted(err error) {
	g.mu.Lock()
	begins := g.rests[restDescriptors].set(true, time.Now())
	g.mu.Unlock()
	if begins {
		g.eng.cfg.Logger.Warn("ws: descriptors run out, new connections wait", slog.Any("error", err))
	}
	g.rest()
}

// rest waits for a while, or until nobody is let in any more.
func (g *acceptGate) rest() {
	select {
	case <-g.over:
	case <-time.After(restInterval):
	}
}
