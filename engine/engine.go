package engine

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/addrlimit"
	"github.com/qi-realtime/ws/internal/loglimit"
	"github.com/qi-realtime/ws/internal/measure"
)

// Engine runs the event loops and their shards. Safe for concurrent use.
type Engine struct {
	// Immutable after New.
	cfg      Config
	handler  Handler
	observer Observer
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
	lifeTicks    uint32 // MaxLifetime; 0 is none
	lifeJitter   uint32 // MaxLifetimeJitter
	writeTicks   uint32 // WriteTimeout; 0 is none
	bounds       [dataLanes]bounds
	highMark     [dataLanes]bounds
	lowMark      [dataLanes]bounds
	storedMark   [dataLanes]bounds // from which on a blocked connection takes no frame under CatchUp
	accept       *acceptGate
	addresses    *addrlimit.Table // nil without limits by address
	refusals     addressRefusals
	deflater     *codec.Deflater
	placement    maphash.Seed // of the placement keys
	silence      silence
	watch        *watchdog
	controls     uint16 // pings and pongs that a connection may send within a tick
	shards       []*Shard
	loops        []*gnetLoop // of the shards; none with a Simnet
	handshakes   *handshakes // nil without cfg.TLSConfig

	started chan struct{} // closed once every shard is bound to its loop
	closing chan struct{} // closed when the loops must end
	stopped chan struct{} // closed when the loops have ended
	ticking chan struct{} // closed at gnet's first tick: its loops exist

	now           atomic.Uint32 // ticks since Run
	inbound       atomic.Int64  // bytes that count against the InboundBudget
	holders       atomic.Int64  // connections with an unfinished message that counts
	generations   atomic.Uint32 // of the last connection; see arrivals
	open          atomic.Int64  // connections on the loops, without those refused while the engine stops
	blockedMemory atomic.Int64  // memory of the blocked connections of all shards; kept for a budget only
	publishes     measure.SharedSampler
	running       atomic.Bool
	draining      atomic.Bool
	paced         atomic.Pointer[pacedDrain] // nil before BeginDrain
	halting       atomic.Bool
	ownWaits      atomic.Bool // whether loops wait by themselves; see loopWait

	arrivals  arrivals
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

	began     time.Time     // written before the loops start
	ticked    time.Duration // time of the last tick, on monotonic; confined to pulse
	closeAll  sync.Once
	haltOnce  sync.Once
	tickOnce  sync.Once
	closeOnce func() // closes closing
}

// New returns an engine that is not running yet.
func New(cfg Config, h Handler, o Observer) *Engine {
	e := &Engine{
		cfg: cfg, handler: h, observer: o, tickTime: tickTime(&cfg), placement: maphash.MakeSeed(),
		started: make(chan struct{}), closing: make(chan struct{}),
		stopped: make(chan struct{}), ticking: make(chan struct{}),
	}
	ahead := max(1, min(2*cfg.BroadcastBatchSize, cfg.MessageQueueSize/2))
	e.minOffer = max(1, int(min(cfg.QueueBytes/2, math.MaxInt32))/ahead)
	e.maxAhead = uint64(e.minOffer * ahead)
	e.setBounds()
	e.silence = newSilence(e.ticks(cfg.HeartbeatInterval), e.ticks(cfg.HeartbeatTimeout))
	e.markSpacing = e.ticks(cmp.Or(cfg.HighWaterAge, defaultMarkAge) / 2)
	if cfg.MessageTimeout > 0 {
		e.messageTicks = e.ticks(cfg.MessageTimeout)
	}
	if cfg.WriteTimeout > 0 {
		e.writeTicks = e.ticks(cfg.WriteTimeout)
	}
	e.lifeTicks, e.lifeJitter = e.lifetime()
	e.controls = controlsPerTick(cfg.ControlFrameLimit, e.tickTime)
	e.deflater = codec.NewDeflater(max(1, cfg.CompressionLevel))
	e.cfg.Logger = loglimit.New(cfg.Logger)
	e.closeOnce = sync.OnceFunc(func() { close(e.closing) })
	switch {
	case e.cfg.Now != nil:
	case e.cfg.Simnet != nil:
		e.cfg.Now = e.cfg.Simnet.Now
	default:
		e.cfg.Now = time.Now
	}
	e.accept = newAcceptGate(e)
	if e.addresses = newAddressTable(&cfg); e.addresses != nil {
		e.refusals = newAddressRefusals()
	}
	if cfg.TLSConfig != nil {
		e.handshakes = newHandshakes(e)
	}
	for i := range cfg.Loops {
		s := &Shard{eng: e, index: i, in: newInbox(cfg.BroadcastQueueSize), iov: make([]unix.Iovec, 0, maxWritev)}
		s.work.limit = cmp.Or(cfg.LoopStallThreshold, noLimit)
		s.free.kept = keptQueues / cfg.Loops
		if cfg.Simnet == nil {
			l := newGnetLoop(s)
			s.driver, e.loops = l, append(e.loops, l)
		}
		e.shards = append(e.shards, s)
	}
	e.watch = newWatchdog(e)
	return e
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
	defer e.watch.reports.Wait() // after stopped, because OnStall may wait for that
	defer e.abandonAll()
	defer close(e.stopped)
	defer e.closeWritable()
	if err := e.openWritable(); err != nil {
		return fmt.Errorf("ws: %w", err)
	}
	defer e.closeWakers()
	if err := e.accept.start(); err != nil {
		return fmt.Errorf("ws: %w", err)
	}
	defer e.accept.stop()
	if e.handshakes != nil {
		defer e.handshakes.close()
	}
	e.began = e.cfg.Now()
	err := e.runLoops()
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

// runLoops runs the loops until they end.
func (e *Engine) runLoops() error {
	if e.cfg.Simnet != nil {
		return e.runSimnet()
	}
	e.joinProcessors()
	defer e.leaveProcessors()
	if e.cfg.ListenAddr != "" && !e.listensOnUnix() {
		return e.runListening()
	}
	return e.runEnrolling()
}

// openWritable makes the writability pollers, before the loops start.
func (e *Engine) openWritable() (err error) {
	for _, l := range e.loops {
		if l.writable, err = newWritablePoller(); err != nil {
			return err
		}
	}
	return nil
}

// closeWritable ends the writability pollers, after the loops have ended.
func (e *Engine) closeWritable() {
	for _, l := range e.loops {
		if l.writable != nil {
			l.writable.close()
		}
	}
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

// OnLoop reports whether the caller runs on any of the event loops.
func (e *Engine) OnLoop() bool { return e.callersShard() != nil }

// callersShard returns the shard on whose event loop the caller runs, or nil.
func (e *Engine) callersShard() *Shard {
	for _, s := range e.shards {
		if s.onLoop() {
			return s
		}
	}
	return nil
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
