package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/pool"
	"github.com/qi-realtime/ws/router"
)

// RouteOption sets a property of one registered handler.
type RouteOption func(*routeOptions)

// routeOptions holds the settings of one handler.
type routeOptions struct {
	mode  router.Mode
	pool  *Pool
	limit time.Duration
	doc   string

	request, response reflect.Type // of typed handlers
}

func newRouteOptions(opts []RouteOption) (o routeOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// RunInline runs the handler on the event loop, whatever the manager's mode; it
// must not block. Only while earlier messages of the same client still wait for
// a worker does it run there behind them, to keep their order.
func RunInline() RouteOption {
	return func(o *routeOptions) { o.mode, o.pool = router.ModeInline, nil }
}

// RunPooled runs the handler on a worker, whatever the manager's mode.
func RunPooled() RouteOption {
	return func(o *routeOptions) { o.mode, o.pool = router.ModePooled, nil }
}

// RunOn runs the handler on a worker of p, so that handlers which block for long take no worker
// from other routes. Several routes may share a pool. The messages of one client are handled
// in the order received, also on several pools: a message for p waits for the client's
// earlier messages.
func RunOn(p *Pool) RouteOption {
	return func(o *routeOptions) { o.mode, o.pool = router.ModePooled, p }
}

// LogAfter logs a call of the handler that takes longer than d, once, with the
// stack of its goroutine, and counts it in Stats.LateHandlers. The handler goes
// on. It costs a timer for each message. 0 is off, the default.
func LogAfter(d time.Duration) RouteOption { return func(o *routeOptions) { o.limit = d } }

// Doc describes the event, for Describe.
func Doc(text string) RouteOption { return func(o *routeOptions) { o.doc = text } }

// typed sets the types of a typed handler. One of them may be nil.
func typed(request, response reflect.Type) RouteOption {
	return func(o *routeOptions) { o.request, o.response = request, response }
}

// Pool bounds the goroutines that run the handlers of some routes; see RunOn.
// Each manager that uses it has goroutines of its own, which end with Shutdown.
// Immutable.
type Pool struct {
	workers int
}

// NewPool returns a pool of at most workers goroutines. It panics if workers is
// less than 1.
func NewPool(workers int) *Pool {
	if workers < 1 {
		panic(fmt.Sprintf("ws: NewPool(%d): a pool needs a worker", workers))
	}
	return &Pool{workers: workers}
}

// namedPool is a Pool of one manager with its workers.
type namedPool struct {
	pool    *Pool
	workers *pool.Workers
}

// maxPools bounds the pools of a manager, which the router's modes number.
const maxPools = 1<<8 - 1 - int(router.ModePool)

var errTooManyPools = errors.New("ws: too many pools")

// modeOf returns the router's mode for o, and starts the workers of a pool that is new to the
// manager.
func (m *Manager) modeOf(o *routeOptions) (router.Mode, error) {
	if o.pool == nil {
		return o.mode, nil
	}
	m.poolsMu.Lock()
	defer m.poolsMu.Unlock()
	var pools []namedPool
	if old := m.pools.Load(); old != nil {
		pools = *old
	}
	i := slices.IndexFunc(pools, func(p namedPool) bool { return p.pool == o.pool })
	if i < 0 {
		i = len(pools)
		if i > maxPools {
			return 0, errTooManyPools
		}
		pools = append(slices.Clip(pools), namedPool{o.pool, pool.NewWorkers(o.pool.workers, m.reportPanic)})
		m.pools.Store(&pools)
	}
	return router.ModePool + router.Mode(i), nil
}

// workersOf returns the workers of a mode that is not inline.
func (m *Manager) workersOf(mode router.Mode) *pool.Workers {
	if mode < router.ModePool {
		return m.workers
	}
	return (*m.pools.Load())[mode-router.ModePool].workers
}

// closePools waits for the handlers that run on pools of routes.
func (m *Manager) closePools() {
	if pools := m.pools.Load(); pools != nil {
		for _, p := range *pools {
			_ = p.workers.Close(context.Background()) // an error would be the context's
		}
	}
}

// waitingTasks returns the number of clients that wait for a worker of any pool.
func (m *Manager) waitingTasks() int {
	n := m.workers.Waiting()
	if pools := m.pools.Load(); pools != nil {
		for _, p := range *pools {
			n += p.workers.Waiting()
		}
	}
	return n
}

// lateHandlers logs the calls of handlers that take longer than their LogAfter.
// Safe for concurrent use.
type lateHandlers struct {
	logger *slog.Logger
	count  atomic.Uint64
	dumped atomic.Int64 // time of the last dump of stacks, in Unix nanoseconds
}

const (
	// stacksEvery is the shortest time between two dumps of all stacks: each stops
	// the process for a moment.
	stacksEvery = time.Second
	// maxStackBytes bounds a dump of all stacks.
	maxStackBytes = 8 << 20
)

// watch returns h with a time limit.
func (l *lateHandlers) watch(event string, limit time.Duration, h Handler) Handler {
	return func(c *Client, msg *Message) error {
		id := goroutineID()
		timer := time.AfterFunc(limit, func() { l.report(event, c.ID, limit, id) })
		defer timer.Stop()
		return h(c, msg)
	}
}

// report logs one late call. It runs on the timer's goroutine.
func (l *lateHandlers) report(event, client string, limit time.Duration, goroutine []byte) {
	l.count.Add(1)
	attrs := []any{slog.String("event", event), slog.String("client", client), slog.Duration("limit", limit)}
	now := time.Now().UnixNano()
	if last := l.dumped.Load(); now-last >= int64(stacksEvery) && l.dumped.CompareAndSwap(last, now) {
		// Messages are counted by their text: others must not suppress this one.
		l.logger.Warn("ws: handler is late, with its stack",
			append(attrs, slog.String("stack", string(stackOf(goroutine))))...)
		return
	}
	l.logger.Warn("ws: handler is late", attrs...)
}

// goroutineID returns the beginning of the running goroutine's stack trace, such
// as "goroutine 123 ".
func goroutineID() []byte {
	buf := make([]byte, 32)
	buf = buf[:runtime.Stack(buf, false)]
	return buf[:bytes.IndexByte(buf, '[')]
}

// stackOf returns the stack trace of the goroutine whose trace begins with id, or
// a note that it has ended.
func stackOf(id []byte) []byte {
	buf := make([]byte, 64<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) && n < maxStackBytes {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	for trace := range bytes.SplitSeq(buf[:n], []byte("\n\n")) {
		if bytes.HasPrefix(trace, id) {
			return trace
		}
	}
	return fmt.Appendf(nil, "%sis not in the first %d bytes of all stacks", id, n)
}
