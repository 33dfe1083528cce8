package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/loglimit"
)

// Engine runs the event loops and their shards. Safe for concurrent use.
type Engine struct {
	// Immutable after New.
	cfg     Config
	handler Handler
	// maxAhead bounds the bytes that the tasks from one inbox may offer to a
	// connection that waits for its write. A loop continues to take tasks while
	// it writes, so that connections whose turn comes later get more in one
	// writev. The bound is half a queue, because a client that reads must not
	// find its queue full. Each task counts for at least minOffer, so at most
	// two batches are taken, or half as many tasks as a queue has frames.
	maxAhead     uint64
	minOffer     int
	tickTime     time.Duration
	markSpacing  uint32 // ticks between two marks of a lane
	messageTicks uint32 // MessageTimeout; 0 is none
	writeTicks   uint32 // WriteTimeout; 0 is none
	bounds       [dataLanes]bounds
	highMark     [dataLanes]bounds
	lowMark      [dataLanes]bounds
	writable     *writablePoller
	accept       *acceptGate
	deflater     *codec.Deflater
	ping         *Frame // the heartbeat
	silence      silence
	controls     uint16 // pings and pongs that a connection may send within a tick
	shards       []*Shard
	handshakes   *handshakes // nil without cfg.TLSConfig

	started chan struct{} // closed once every shard is bound to its loop
	closing chan struct{} // closed when the loops must end
	stopped chan struct{} // closed when the loops have ended
	ticking chan struct{} // closed at gnet's first tick: its loops exist

	now           atomic.Uint32 // ticks since Run
	inbound       atomic.Int64  // bytes that count against the InboundBudget
	holders       atomic.Int64  // connections with an unfinished message that counts
	generations   atomic.Uint32
	open          atomic.Int64 // connections on the loops, without those refused while the engine stops
	blockedMemory atomic.Int64 // memory of the blocked connections of all shards; kept for a budget only
	running       atomic.Bool
	draining      atomic.Bool
	halting       atomic.Bool

	enrolls   sync.WaitGroup // calls of Enroll; none is added after draining
	enrolling sync.Map       // *Conn to *enrolling, while Enroll runs

	// gate is held for reading while a loop is woken, and for writing when
	// halting is set.
	gate sync.RWMutex

	mu       sync.Mutex
	drainEnd CloseInfo            // written before draining is set
	serving  map[*served]struct{} // guarded by mu; nil without listeners of our own
	addr     net.Addr             // guarded by mu
	bound    int                  // shards with a loop; guarded by mu
	failed   error                // error of the start-up; guarded by mu
	gnet     gnet.Engine          // guarded by mu
	wakers   []*waker             // guarded by mu

	began     time.Time // written before the loops start
	closeAll  sync.Once
	haltOnce  sync.Once
	tickOnce  sync.Once
	closeOnce func() // closes closing
}

// New returns an engine that is not running yet.
func New(cfg Config, h Handler) *Engine {
	e := &Engine{
		cfg: cfg, handler: h, tickTime: tickTime(&cfg),
		started: make(chan struct{}), closing: make(chan struct{}),
		stopped: make(chan struct{}), ticking: make(chan struct{}),
	}
	ahead := max(1, min(2*cfg.BroadcastBatchSize, cfg.MessageQueueSize/2))
	e.minOffer = max(1, int(min(cfg.QueueBytes/2, math.MaxInt32))/ahead)
	e.maxAhead = uint64(e.minOffer * ahead)
	e.bounds[LaneNormal] = bounds{uint64(cfg.MessageQueueSize), cfg.QueueBytes}
	e.bounds[LaneHigh] = bounds{uint64(cfg.HighQueueSize), cfg.HighQueueBytes}
	for lane, b := range e.bounds {
		e.highMark[lane], e.lowMark[lane] = b.share(cfg.HighWaterMark), b.share(cfg.LowWaterMark)
	}
	e.silence = newSilence(e.ticks(cfg.HeartbeatInterval), e.ticks(cfg.HeartbeatTimeout))
	e.markSpacing = e.ticks(cmp.Or(cfg.HighWaterAge, defaultMarkAge) / 2)
	if cfg.MessageTimeout > 0 {
		e.messageTicks = e.ticks(cfg.MessageTimeout)
	}
	if cfg.WriteTimeout > 0 {
		e.writeTicks = e.ticks(cfg.WriteTimeout)
	}
	e.controls = controlsPerTick(cfg.ControlFrameLimit, e.tickTime)
	e.deflater = codec.NewDeflater(max(1, cfg.CompressionLevel))
	e.ping = newControlFrame(codec.OpPing, nil)
	e.cfg.Logger = loglimit.New(cfg.Logger)
	e.closeOnce = sync.OnceFunc(func() { close(e.closing) })
	switch {
	case e.cfg.Now != nil:
	case e.cfg.Simnet != nil:
		e.cfg.Now = e.cfg.Simnet.now
	default:
		e.cfg.Now = time.Now
	}
	e.accept = newAcceptGate(e)
	if cfg.TLSConfig != nil {
		e.handshakes = newHandshakes(e)
	}
	for i := range cfg.Loops {
		s := &Shard{eng: e, index: i, in: newInbox(cfg.BroadcastQueueSize), iov: make([]unix.Iovec, 0, maxWritev)}
		s.ready.Store(&noReadiness)
		e.shards = append(e.shards, s)
	}
	return e
}

// tickTime returns the resolution of the timers: a tenth of the shortest one,
// between 5 and 250 ms.
func tickTime(cfg *Config) time.Duration {
	shortest := min(cfg.HandshakeTimeout, cfg.HeartbeatInterval, cfg.CloseTimeout)
	for _, d := range []time.Duration{cfg.MessageTimeout, cfg.WriteTimeout} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return min(max(shortest/10, 5*time.Millisecond), 250*time.Millisecond)
}

// defaultMarkAge spaces the marks of a queue without a high-water age.
const defaultMarkAge = 2 * time.Second

// minControlsPerTick lets a burst pass that comes after a pause.
const minControlsPerTick = 1000

// controlsPerTick converts a limit for each second to one for each tick.
func controlsPerTick(perSecond int, tick time.Duration) uint16 {
	if perSecond == 0 {
		return math.MaxUint16 - 1
	}
	return uint16(min(max(float64(perSecond)*tick.Seconds(), minControlsPerTick), math.MaxUint16-1))
}

// ticks converts d to ticks, at least one. The result is small enough that
// deadlines can be compared although the clock wraps around: 62 days with the
// shortest tick.
func (e *Engine) ticks(d time.Duration) uint32 {
	return uint32(min(max(1, d/e.tickTime), 1<<30))
}

// elapsed returns the time since Run.
func (e *Engine) elapsed() time.Duration { return e.cfg.Now().Sub(e.began) }

// after returns the tick at d from now.
func (e *Engine) after(d time.Duration) uint32 { return e.now.Load() + e.ticks(d) }

// jitter returns a random time within the ping interval.
func (e *Engine) jitter() time.Duration {
	return time.Duration(rand.Int64N(int64(e.cfg.HeartbeatInterval)))
}

// Run starts the loops and returns when they have ended: nil after Stop, or an
// error if they could not start or ended by themselves.
func (e *Engine) Run() error {
	if !e.running.CompareAndSwap(false, true) {
		if e.draining.Load() {
			return nil // stopped before it ran
		}
		return ErrRunning
	}
	defer loglimit.Flush(e.cfg.Logger)
	defer e.abandonAll()
	defer close(e.stopped)
	var err error
	if e.writable, err = newWritablePoller(); err != nil {
		return fmt.Errorf("ws: %w", err)
	}
	defer e.writable.close()
	defer e.closeWakers()
	if err := e.accept.start(); err != nil {
		return fmt.Errorf("ws: %w", err)
	}
	defer e.accept.stop()
	if e.handshakes != nil {
		defer e.handshakes.close()
	}
	e.began = e.cfg.Now()
	switch {
	case e.cfg.Simnet != nil:
		err = e.runSimnet()
	case e.cfg.ListenAddr != "" && !e.listensOnUnix():
		err = e.runListening()
	default:
		err = e.runEnrolling()
	}
	e.accept.end()
	e.closeServed()
	asked := e.setHalting()
	e.mu.Lock()
	failed := e.failed
	e.mu.Unlock()
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case !asked:
		return errors.New("ws: the event loops ended unasked (descriptors exhausted?)")
	}
	return nil
}

// setHalting prevents all later wake-ups of loops, because their wake-up
// descriptors may be closed and reused. It returns the previous value.
func (e *Engine) setHalting() (before bool) {
	e.gate.Lock()
	defer e.gate.Unlock()
	return e.halting.Swap(true)
}

// Started is closed once connections are served.
func (e *Engine) Started() <-chan struct{} { return e.started }

// Stopped is closed once the loops have ended.
func (e *Engine) Stopped() <-chan struct{} { return e.stopped }

// Draining reports whether Stop was called.
func (e *Engine) Draining() bool { return e.draining.Load() }

// Addr returns the listener's address, nil without one or before Started.
func (e *Engine) Addr() net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addr
}

// Shards returns the shards. The slice must not be changed.
func (e *Engine) Shards() []*Shard { return e.shards }

// onLoop reports whether the caller runs on any of the event loops.
func (e *Engine) onLoop() bool { return e.callersShard() != nil }

// callersShard returns the shard on whose event loop the caller runs, or nil.
func (e *Engine) callersShard() *Shard {
	for _, s := range e.shards {
		if s.onLoop() {
			return s
		}
	}
	return nil
}

// abandonAll abandons the tasks in the inboxes after the loops have ended.
func (e *Engine) abandonAll() {
	for _, s := range e.shards {
		s.abandonRest()
		s.gid.Store(0) // another goroutine may get the same descriptor
		s.in.drain(s)
	}
}

func (e *Engine) isStopped() bool {
	select {
	case <-e.stopped:
		return true
	default:
		return false
	}
}

// EachInLoop calls fn for every connection of s that takes data. fn may queue
// frames on it.
func (s *Shard) EachInLoop(fn func(*Conn)) {
	s.wheel.each(func(c *Conn) {
		if c.takesDataInLoop() {
			fn(c)
		}
	})
}

// guard recovers from a panic and logs it. It must be deferred.
func (e *Engine) guard(where string) {
	if r := recover(); r != nil {
		e.reportPanic(where, r)
	}
}

// reportPanic logs a recovered panic with the stack of the caller.
func (e *Engine) reportPanic(where string, r any) {
	e.cfg.Logger.Error("ws: panic recovered", slog.String("where", where), slog.Any("panic", r), loglimit.Stack())
}

// haltTime is the time that Stop waits for the loops after the end of its
// context. They need longer only while a handler holds one.
const haltTime = time.Second

// Stop closes every connection with code and reason behind its queued frames,
// and ends the loops. If ctx ends before the peers have answered, Stop closes
// their sockets at once and returns ctx.Err(). A loop that a handler holds then
// ends when the handler returns; Stop does not wait for it. Calls after the
// first wait for the same end.
func (e *Engine) Stop(ctx context.Context, code codec.CloseCode, reason string) error {
	e.beginDrain(CloseInfo{Code: code, Reason: reason})
	if e.running.CompareAndSwap(false, true) {
		close(e.stopped) // never ran
		return nil
	}
	select {
	case <-e.started: // or the start fails: both within bootTime
	case <-e.stopped:
		return nil
	}
	e.closeAll.Do(func() {
		for _, s := range e.shards {
			s.Post(closeAllTask{})
		}
	})
	e.stopAccepting(ctx)
	err := e.awaitEmpty(ctx)
	e.haltOnce.Do(func() {
		go func() { // ends with the loops
			e.enrolls.Wait()
			e.halt()
		}()
	})
	select {
	case <-e.stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case <-e.stopped:
		return err
	case <-time.After(haltTime):
		return ctx.Err()
	}
}

// stopAccepting ends the acceptance of connections, because a drain would not
// end while the engine accepted connections only to refuse them.
func (e *Engine) stopAccepting(ctx context.Context) {
	e.accept.giveUp(ctx)
	e.closeServed()
}

// awaitEmpty waits until no connection is left. It polls, because this happens
// once in an engine's life.
func (e *Engine) awaitEmpty(ctx context.Context) error {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for e.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.stopped:
			return nil
		case <-poll.C:
		}
	}
	return nil
}

// beginDrain refuses all later connections.
func (e *Engine) beginDrain(end CloseInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.draining.Load() {
		e.drainEnd = end
		e.draining.Store(true)
	}
}

// halt ends the loops.
func (e *Engine) halt() {
	e.setHalting()
	e.closeOnce()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wakers {
		w.yield()
	}
}
