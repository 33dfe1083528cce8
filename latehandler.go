package ws

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"
)

// lateHandlers logs the calls of handlers that take longer than their LogAfter.
// Safe for concurrent use.
type lateHandlers struct {
	logger *slog.Logger
	count  atomic.Uint64
	dumped atomic.Int64 // when stacks were last taken, in Unix nanoseconds
}

const (
	// stacksEvery is the shortest time between two dumps of all stacks: each stops
	// the process for a moment.
	stacksEvery = time.Second
	// maxStackBytes bounds such a dump.
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
	message, attrs := "ws: handler is late", []any{slog.String("event", event), slog.String("client", client), slog.Duration("limit", limit)}
	now := time.Now().UnixNano()
	if last := l.dumped.Load(); now-last >= int64(stacksEvery) && l.dumped.CompareAndSwap(last, now) {
		// Messages are counted by their text: others must not suppress this one.
		message = "ws: handler is late, with its stack"
		attrs = append(attrs, slog.String("stack", string(stackOf(goroutine))))
	}
	l.logger.Warn(message, attrs...)
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
