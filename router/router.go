package router

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Handler handles one message of one client. The caller of Router.Call decides on which
// goroutine it runs and how long the message is valid.
type Handler[C, M any] func(C, M) error

// Middleware runs around a handler. It calls next to go on, or returns without a call of next
// to stop the message. See Router.Call.
type Middleware[C, M any] func(c C, m M, next func() error) error

// Mode is the place where a route's handler runs.
type Mode uint8

const (
	// ModeDefault runs the handler by the manager's handler mode.
	ModeDefault Mode = iota
	// ModePooled runs the handler on the worker pool. The handler may block.
	ModePooled
	// ModeInline runs the handler on the event loop. The handler must not block.
	ModeInline
	// ModePool and the modes above it run the handler on pools, which the caller numbers.
	ModePool
)

// Route is the handler of one event. Immutable after New.
type Route[C, M any] struct {
	// Event is the name of the event.
	Event string

	// Handler handles the messages of the event. Router.Call runs it.
	Handler Handler[C, M]

	// Mode is the place where the handler runs.
	Mode Mode

	// Request and Response are the types of the data. They are nil if the handler takes or
	// answers none, or if the types are unknown. Doc describes the event.
	Request, Response reflect.Type
	Doc               string
}

// Router maps event names to routes. Lookups take no lock: they read an immutable table.
// Register, Use and Freeze replace the table by a changed copy. Safe for concurrent use.
type Router[C, M any] struct {
	// Atomic. Replaced with mu held.
	table atomic.Pointer[table[C, M]]

	chains sync.Pool // of *chain, which Call uses

	mu sync.Mutex // held while table is replaced
}

// table is one state of the router. Immutable after New.
type table[C, M any] struct {
	routes     map[string]*Route[C, M]
	middleware []link[C, M] // outermost first
	overrides  bool         // at least one route has another Mode than ModeDefault
	frozen     bool
}

// New returns a router without routes.
func New[C, M any]() *Router[C, M] {
	r := &Router[C, M]{}
	r.table.Store(&table[C, M]{routes: map[string]*Route[C, M]{}})
	return r
}

// Register adds a route. It returns ErrFrozen, ErrEmptyEvent, ErrExists or ErrNilHandler.
// Safe for concurrent use.
func (r *Router[C, M]) Register(route Route[C, M]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := *r.table.Load()
	switch {
	case t.frozen:
		return ErrFrozen
	case route.Event == "":
		return ErrEmptyEvent
	case t.routes[route.Event] != nil:
		return ErrExists
	case route.Handler == nil:
		return ErrNilHandler
	}
	t.routes = maps.Clone(t.routes)
	t.routes[route.Event] = &route
	t.overrides = t.overrides || route.Mode != ModeDefault
	r.table.Store(&t)
	return nil
}

// Use puts mw inside the earlier middleware, its first outermost. The middleware runs for all
// routes, earlier ones included. It does not run for a message without a route. Use returns
// ErrFrozen, or ErrNilHandler if one of mw is nil, and then adds none.
// Safe for concurrent use.
func (r *Router[C, M]) Use(mw ...Middleware[C, M]) error {
	links := make([]link[C, M], len(mw))
	for i, m := range mw {
		if m == nil {
			return r.usable(ErrNilHandler)
		}
		links[i].run = m
	}
	return r.use(links)
}

// UseIf is Use for middleware that runs only if want returns true. A message that is not wanted
// costs the call of want alone. want runs each time that the middleware before it calls next.
// Safe for concurrent use.
func (r *Router[C, M]) UseIf(want func(c C, m M) bool, mw Middleware[C, M]) error {
	if want == nil || mw == nil {
		return r.usable(ErrNilHandler)
	}
	return r.use([]link[C, M]{{want, mw}})
}

// usable returns ErrFrozen after Freeze, and err before.
func (r *Router[C, M]) usable(err error) error {
	if r.Frozen() {
		return ErrFrozen
	}
	return err
}

func (r *Router[C, M]) use(links []link[C, M]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := *r.table.Load()
	if t.frozen {
		return ErrFrozen
	}
	t.middleware = append(slices.Clip(t.middleware), links...)
	r.table.Store(&t)
	return nil
}

// Freeze makes later calls of Register and Use return ErrFrozen. Safe for concurrent use.
func (r *Router[C, M]) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := *r.table.Load()
	t.frozen = true
	r.table.Store(&t)
}

// Frozen reports whether Freeze was called. Safe for concurrent use.
func (r *Router[C, M]) Frozen() bool { return r.table.Load().frozen }

// Lookup returns the route of event. It takes no lock and allocates nothing.
// Safe for concurrent use.
func (r *Router[C, M]) Lookup(event string) (*Route[C, M], bool) {
	route, ok := r.table.Load().routes[event]
	return route, ok
}

// LookupBytes is Lookup for a borrowed event name. Safe for concurrent use.
func (r *Router[C, M]) LookupBytes(event []byte) (*Route[C, M], bool) {
	route, ok := r.table.Load().routes[string(event)] // the compiler does not copy event here
	return route, ok
}

// Routes returns the routes, sorted by event. Safe for concurrent use.
func (r *Router[C, M]) Routes() []*Route[C, M] {
	return slices.SortedFunc(maps.Values(r.table.Load().routes), func(a, b *Route[C, M]) int {
		return strings.Compare(a.Event, b.Event)
	})
}

// HasModeOverrides reports whether a route has another Mode than ModeDefault. Without one, a
// caller knows the mode of a message without its event name. Safe for concurrent use.
func (r *Router[C, M]) HasModeOverrides() bool { return r.table.Load().overrides }

// Len returns the number of routes. Safe for concurrent use.
func (r *Router[C, M]) Len() int { return len(r.table.Load().routes) }
