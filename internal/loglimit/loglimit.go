// Package loglimit bounds the rate of each log message of the library, and ends panics of the
// application's log handler.
package loglimit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// window is the time in which a message is logged at most perWindow times.
	window    = time.Second
	perWindow = 10
	// maxMessages bounds the messages with a count of their own. All others share one count.
	// The library's messages are constants, and fewer.
	maxMessages = 128
)

// New returns a logger that passes records to the handler of l: at most 10 records with the
// same message and level in each second. At the end of a second with more records it passes one
// with the attribute "suppressed", the number of the others. A panic in the handler of l ends
// there; the first is written to the standard error. New returns l itself if l is from New. A
// nil l means slog.Default.
func New(l *slog.Logger) *slog.Logger {
	if l == nil {
		l = slog.Default()
	}
	if _, ok := l.Handler().(*handler); ok {
		return l
	}
	return slog.New(&handler{next: l.Handler(), limiter: &limiter{counts: make(map[key]*count)}})
}

// Flush logs the numbers of suppressed records now. It does nothing if l is not from New.
func Flush(l *slog.Logger) {
	if h, ok := l.Handler().(*handler); ok {
		h.limiter.flushAll()
	}
}

// Stack returns an attribute with the stack trace of the goroutine that logs it. The trace is
// taken only if the record is not suppressed.
func Stack() slog.Attr { return slog.Any("stack", stack{}) }

type stack struct{}

// LogValue takes the stack trace.
func (stack) LogValue() slog.Value { return slog.StringValue(string(debug.Stack())) }

// handler is the slog.Handler of a logger from New. Immutable.
type handler struct {
	next    slog.Handler
	limiter *limiter // shared with the handlers that WithAttrs and WithGroup return
}

// Enabled asks the application's handler.
func (h *handler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer h.limiter.guard()
	return h.next.Enabled(ctx, level)
}

// Handle passes r on unless its message has reached perWindow.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.limiter.allow(h.next, &r) {
		return nil
	}
	defer h.limiter.guard()
	return h.next.Handle(ctx, withStack(r))
}

// WithAttrs returns a handler that shares its counts with h.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.derive(func() slog.Handler { return h.next.WithAttrs(attrs) })
}

// WithGroup returns a handler that shares its counts with h.
func (h *handler) WithGroup(name string) slog.Handler {
	return h.derive(func() slog.Handler { return h.next.WithGroup(name) })
}

// derive returns a handler around the result of derived, or around h.next if derived panics.
func (h *handler) derive(derived func() slog.Handler) *handler {
	with := *h
	func() {
		defer h.limiter.guard()
		with.next = derived()
	}()
	return &with
}

// withStack returns r with its Stack taken, because the application's handler may read r on
// another goroutine.
func withStack(r slog.Record) slog.Record {
	lazy := false
	r.Attrs(func(a slog.Attr) bool {
		lazy = isStack(a)
		return !lazy
	})
	if !lazy {
		return r
	}
	taken := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if isStack(a) {
			a.Value = a.Value.Resolve()
		}
		taken.AddAttrs(a)
		return true
	})
	return taken
}

func isStack(a slog.Attr) bool {
	if a.Value.Kind() != slog.KindLogValuer {
		return false
	}
	_, ok := a.Value.Any().(stack)
	return ok
}

// limiter counts records by message and level. Safe for concurrent use.
type limiter struct {
	failed sync.Once // the application's handler has panicked

	mu     sync.Mutex
	counts map[key]*count // guarded by mu
}

// key identifies the records that share a count.
type key struct {
	level   slog.Level
	message string
}

// count is the state of one key, guarded by limiter.mu.
type count struct {
	key        key
	began      time.Time // of the window
	passed     int       // in the window
	suppressed int       // not yet logged
	next       slog.Handler
	pc         uintptr
	timer      *time.Timer // runs while suppressed is not 0
}

// allow reports whether r is to be passed on to next.
func (l *limiter) allow(next slog.Handler, r *slog.Record) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.countLocked(key{r.Level, r.Message})
	if now.Sub(c.began) >= window {
		c.began, c.passed = now, 0
	}
	if c.passed < perWindow {
		c.passed++
		return true
	}
	c.suppressed++
	c.next, c.pc = next, r.PC
	if c.suppressed == 1 {
		c.timer = time.AfterFunc(window-now.Sub(c.began), func() { l.flush(c) })
	}
	return false
}

func (l *limiter) countLocked(k key) *count {
	c := l.counts[k]
	if c == nil && len(l.counts) >= maxMessages {
		k = key{k.level, "ws: other messages"}
		c = l.counts[k]
	}
	if c == nil {
		c = &count{key: k}
		l.counts[k] = c
	}
	return c
}

// flush logs the number of suppressed records of c.
func (l *limiter) flush(c *count) {
	l.mu.Lock()
	n, next := c.suppressed, c.next
	r := slog.NewRecord(time.Now(), c.key.level, c.key.message, c.pc)
	c.suppressed, c.next = 0, nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	l.mu.Unlock()
	if n == 0 {
		return
	}
	r.AddAttrs(slog.Int("suppressed", n))
	defer l.guard()
	_ = next.Handle(context.Background(), r) // slog ignores it, too
}

func (l *limiter) flushAll() {
	l.mu.Lock()
	all := make([]*count, 0, len(l.counts))
	for _, c := range l.counts {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		l.flush(c)
	}
}

// guard ends a panic of the application's handler. It must be deferred.
func (l *limiter) guard() {
	if r := recover(); r != nil {
		l.failed.Do(func() {
			fmt.Fprintf(os.Stderr, "ws: the handler of the logger panicked: %v\n%s", r, debug.Stack())
		})
	}
}
