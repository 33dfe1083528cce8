package router

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Handler handles one message of one client. On which goroutine it runs, and how long the
// message is valid, is for the caller of Router.Call to say.
type Handler[C, M any] func(C, M) error

// Middleware runs around a handler: it calls next to go on, or returns without it to stop
// the message there. See Router.Call.
type Middleware[C, M any] func(c C, m M, next func() error) error

// Mode says where a route's handler runs.
type Mode uint8

const (
	// ModeDefault runs the handler where the manager's handler mode says.
	ModeDefault Mode = iota
	// ModePooled runs the handler on the worker pool; it may block.
	ModePooled
	// ModeInline runs the handler on the event loop; it must not block.
	ModeInline
	// ModePool and the modes above it run the handler on pools that the caller
	// numbers.
	ModePool
)

// Route is the handler of one event. Immutable after New.
type Route[C, M any] struct {
	// Event is the name it was registered under.
	Event string

	// Handler is the registered handler; Router.Call runs it.
	Handler Handler[C, M]

	// Mode says where the handler runs.
	Mode Mode

	// Request and Response are the types of the data, nil if the handler takes or
	// answers none, or if nothing is known of them. Doc describes the event.
	Request, Response reflect.Type
	Doc               string
}

// Router maps event names to routes. Lookups take no lock: they read an immutable table
// that Register, Use and Freeze replace by a changed copy. Safe for concurrent use.
type Router[C, M any] struct {
	// Atomic. Replaced with mu held.
	table atomic.Pointer[table[C, M]]

	chains sync.Pool // of *chain, which Call uses

	mu sync.Mutex // held by who replaces table
}

// table is one state of the router. Immutable after New.
type table[C, M any] struct {
	routes     map[string]*Route[C, M]
	middleware []Middleware[C, M] // outermost first
	overrides  bool               // a route's Mode is not ModeDefault
	frozen     bool
}

// New returns a router without routes.
func New[C, M any]() *Router[C, M] {
	r := &Router[C, M]{}
	r.table.Store(&table[C, M]{routes: map[string]*Route[C, M]{}})
	return r
}

// Register adds a route. It returns ErrFrozen, ErrEmptyEvent, ErrExists if the
// event has a handler, and ErrNilHandler. Safe for concurrent use.
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

// Use puts mw inside the middleware there already is, the first of them outermost. It
// applies to all routes, also to those registered before; a message of no route meets no
// middleware. It returns ErrFrozen, and ErrNilHandler if one of mw is nil; then none is used.
// Safe for concurrent use.
func (r *Router[C, M]) Use(mw ...Middleware[C, M]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := *r.table.Load()
	if t.frozen {
		return ErrFrozen
	}
	for _, m := range mw {
		if m == nil {
			return ErrNilHandler
		}
	}
	t.middleware = append(slices.Clip(t.middleware), mw...)
	r.table.Store(&t)
	return nil
}

// Freeze makes Register and Use return ErrFrozen from here on. Safe for concurrent use.
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

// HasModeOverrides reports whether a route's Mode is not ModeDefault. While there is none,
// a caller knows a message's mode without reading its event name. Safe for concurrent use.
func (r *Router[C, M]) HasModeOverrides() bool { return r.table.Load().overrides }

// HasMiddleware reports whether Use has added middleware. Safe for concurrent use.
func (r *Router[C, M]) HasMiddleware() bool { return len(r.table.Load().middleware) > 0 }

// Len returns the number of routes. Safe for concurrent use.
func (r *Router[C, M]) Len() int { return len(r.table.Load().routes) }
