package ws

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/idempotency"
	"github.com/qi-realtime/ws/internal/loglimit"
	"github.com/qi-realtime/ws/pool"
	"github.com/qi-realtime/ws/room"
	"github.com/qi-realtime/ws/router"
)

// Manager holds the connections, rooms and handlers of one service. Create it
// with NewManager, register handlers, and call Run. Safe for concurrent use.
type Manager struct {
	// Router freezes the set of handlers.
	Router *Router
	// EventBus counts the dropped events; see Subscribe.
	EventBus *EventBus

	cfg       Config
	metrics   Metrics
	measures  bool    // metrics is not NoopMetrics
	gauges    *gauges // nil with NoopMetrics
	engine    *engine.Engine
	clients   *registry
	rooms     *room.Directory[*Client, roomData]
	histories histories
	presences presences
	node      *node         // nil without a Broker
	inboxes   *inboxConfig  // nil without Config.Inbox
	workers   *pool.Workers // handlers
	poolsMu   sync.Mutex
	pools     atomic.Pointer[[]namedPool] // of RunOn; replaced with poolsMu held
	late      lateHandlers

	unhandled atomic.Uint64  // messages received and not handled
	auth      *authenticator // of Authenticate and CheckOrigin
	greeter   *authenticator // of OnConnect
	admission *admission
	slow      slowWatch
	flight    flightRecorder
	walks     []fanOutWalk // one for each loop, loop-confined
	catchUps  []catchUps   // one for each loop, loop-confined
	raw       atomic.Pointer[rawRoute]
	binary    atomic.Pointer[rawRoute] // of HandleBinary

	limits      *limits       // nil without a RateLimit
	created     time.Time     // time 0 of the limiters
	rateLimited atomic.Uint64 // refused messages
	refusals    refusals
	notices     notices

	definitions  definitions
	handlerTimes *handlerTimes
	replies      *idempotency.Table[*Client] // to idempotent requests; nil without Config.Idempotency
	unkept       atomic.Uint64               // idempotent requests whose reply cannot be kept

	ctx        context.Context // of the clients
	cancel     context.CancelFunc
	stopOnce   sync.Once
	finishOnce sync.Once
	stopping   chan struct{} // closed when Shutdown begins
	finished   chan struct{} // closed when the handlers and subscribers are done
}

// NewManager returns a manager that is not running yet. It returns an error
// that wraps ErrInvalidConfig and names the field if an option is out of range.
func NewManager(opts ...Option) (*Manager, error) {
	cfg := DefaultConfig()
	for _, opt := range opts {
		if opt != nil {
			opt(&cfg)
		}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	cfg.warnOfWildcards()
	_, noop := cfg.Metrics.(NoopMetrics)
	bus := newEventBus(cfg.Logger, cfg.MaxConnections)
	n := newNode(&cfg)
	m := &Manager{
		EventBus:     bus,
		Router:       &Router{router.New[*Client, *Message]()},
		cfg:          cfg,
		metrics:      cfg.Metrics,
		measures:     !noop,
		limits:       newLimits(cfg.RateLimit),
		created:      time.Now(),
		clients:      newRegistry(bus, n),
		node:         n,
		rooms:        room.NewDirectory(newRoomConfig(&cfg, bus, n)),
		handlerTimes: newHandlerTimes(cfg.Loops),
		stopping:     make(chan struct{}),
		finished:     make(chan struct{}),
	}
	if !noop {
		guarded := &guardedMetrics{cfg.Metrics, m.reportPanic}
		m.metrics, m.gauges = guarded, newGauges(m, guarded)
	}
	m.replies = cfg.Idempotency.newTable()
	m.inboxes, _ = cfg.Inbox.config() // Validate has found no error
	m.walks, m.catchUps = make([]fanOutWalk, cfg.Loops), make([]catchUps, cfg.Loops)
	m.slow = slowWatch{manager: m, pending: make(map[*Client]*slowEdge)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.late.logger = cfg.Logger
	m.flight.recorder = cfg.FlightRecorder
	m.workers = pool.NewWorkers(cfg.Workers, m.reportPanic)
	m.auth = newAuthenticator(cmp.Or(cfg.Admission.Authentications, cfg.Workers), m.reportPanic)
	m.greeter = newAuthenticator(cfg.Workers, m.reportPanic)
	m.admission = newAdmission(&cfg.Admission)
	engineConfig := cfg.engine()
	engineConfig.Retirement = DrainConfig{}.retirement(m)
	m.engine = engine.New(engineConfig, (*engineHandler)(m), (*engineObserver)(m))
	m.histories.budget, m.histories.clock, m.histories.bus = cfg.HistoryBudget, m.engine.Clock, bus
	m.presences.init(m)
	if n != nil {
		n.manager = m
		n.jobs = pool.NewWorkers(storeWorkers, m.reportPanic)
		n.joins = pool.NewWorkers(joinWorkers, m.reportPanic)
	}
	return m, nil
}

// Run starts the event loops and returns when they have ended: nil after Shutdown, an error
// that names the address if it cannot listen, or the cause if the loops ended unasked. It
// may be called once.
func (m *Manager) Run() error {
	defer m.flight.start(m.cfg.Logger)()
	if err := m.node.start(); err != nil {
		return err
	}
	defer m.node.stop()
	defer m.presences.start()()
	ended := make(chan struct{})
	var janitor sync.WaitGroup
	janitor.Go(func() { m.clean(&janitor, ended) }) // owned by this call, which waits for it
	err := m.engine.Run()
	close(ended)
	janitor.Wait()
	return err
}

// clean ends the rooms that have been empty for long, and drops messages of histories and replies
// that have reached their time, until ended is closed. Another
// goroutine takes its place if the application's Metrics ends this one.
func (m *Manager) clean(janitor *sync.WaitGroup, ended <-chan struct{}) {
	returned := false
	defer func() {
		if !returned {
			m.reportPanic(errGoexit)
			janitor.Go(func() { m.clean(janitor, ended) }) // owned by Run
		}
	}()
	now, interval := m.cfg.Simnet.clock(), m.cfg.Room.CleanupInterval
	if m.cfg.Simnet != nil {
		interval = min(interval, expiryInterval) // its time passes in leaps
	}
	ticker, expiry := time.NewTicker(interval), time.NewTicker(expiryInterval)
	defer ticker.Stop()
	defer expiry.Stop()
	replies, stop := m.cfg.Idempotency.ticks()
	defer stop()
	for {
		select {
		case <-ended:
			returned = true
			return
		case <-ticker.C:
			m.endEmptyRooms(now())
		case <-expiry.C:
			m.expireHistories(m.engine.Clock())
		case <-replies:
			m.replies.Expire(m.engine.Clock())
		}
	}
}

// expiryInterval is the time between two searches for messages of histories that have reached
// their TTL. A read of a history finds them itself.
const expiryInterval = time.Second

// Shutdown refuses new connections, closes all clients with code 1001 behind their queued
// messages, waits until they have answered, ends the event loops, waits for the handlers
// that run, and hands out the events that wait. If ctx ends first, it ends the remaining
// connections at once and returns ctx.Err(); then running handlers, and an event loop that
// an inline handler holds, end when the handlers return. A handler or subscriber must not
// call it, because it waits for them. Later calls wait for the same end; if the context of
// one of them ends first, it ends the connections for all.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.stopOnce.Do(func() {
		close(m.stopping)
		m.cancel()
	})
	err := m.engine.Stop(ctx, codec.CloseGoingAway, "server is shutting down")
	m.finishOnce.Do(func() { go m.finish() }) // ends when the last handler has returned
	select {
	case <-m.finished:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return err
}

// finish waits for all running handlers, and then for the subscribers, so that the
// disconnects behind the last messages are not lost.
func (m *Manager) finish() {
	defer close(m.finished)
	<-m.engine.Stopped()
	m.auth.close()
	m.greeter.close()
	_ = m.workers.Close(context.Background())
	m.closePools()
	m.node.stop()
	<-m.EventBus.close()
	loglimit.Flush(m.cfg.Logger)
}

// stopped returns ErrManagerStopped once Shutdown has begun.
func (m *Manager) stopped() error {
	select {
	case <-m.stopping:
		return ErrManagerStopped
	default:
		return nil
	}
}

// Subscribe calls fn for every event of type t. Subscribers run one after the
// other on a goroutine of the bus: one that blocks holds up the events, not the
// connections, and a panic in it is logged. EventBus describes the bounds of events
// while many wait.
func (m *Manager) Subscribe(t EventType, fn func(Event)) { m.EventBus.subscribe(t, fn) }

// GetClient returns the connected client of that ID.
func (m *Manager) GetClient(id string) (*Client, bool) { return m.clients.get(id) }

// GetClientCount returns how many clients are connected.
func (m *Manager) GetClientCount() int { return int(m.clients.open.Load()) }

// RangeClients calls fn for every connected client until it returns false. No lock is held
// meanwhile: fn may miss clients that come or go.
func (m *Manager) RangeClients(fn func(*Client) bool) { m.clients.each(fn) }

// reportError publishes an error of c.
func (m *Manager) reportError(c *Client, err error) {
	m.EventBus.publish(EventError, c, err)
}
