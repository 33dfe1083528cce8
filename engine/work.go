package engine

import (
	"math"
	"sync/atomic"
	"time"
)

// maxGap is the longest time between two callbacks that counts as work. Between
// two callbacks gnet reads a socket, which takes 1 to 20 µs, or waits for events;
// it does not report the difference. A wait takes about as much of a processor:
// the way into the kernel, the scheduler, and the way back.
const maxGap = 20 * time.Microsecond

// noLimit is the limit of a loopWork that no watchdog looks at.
const noLimit = time.Duration(math.MaxInt64)

// origin is time 0 of monotonic.
var origin = time.Now()

// monotonic returns the monotonic time, at half of the cost of time.Now.
func monotonic() time.Duration { return time.Since(origin) }

// loopWork measures the time in which a loop works: its callbacks, and the
// short gaps between them. It also notes the callbacks that take long.
//
// total and running are safe for concurrent use. Loop-confined otherwise: use
// only on the event loop that owns the connections.
type loopWork struct {
	limit time.Duration // a callback that takes this long is noted in held; immutable

	// Loop-confined.
	depth int           // callbacks within each other
	began time.Duration // start of the outermost one
	ended time.Duration // end of the last one
	done  time.Duration // the work without the running callback

	// Atomic.
	since atomic.Int64           // start of the last callback
	mark  atomic.Int64           // done; or while a callback runs, done less its start, which is negative
	held  atomic.Pointer[hold]   // the last callback that took long, until the watchdog takes it
	shown atomic.Int64           // the largest total that was returned
	event atomic.Pointer[string] // the event of the last message in the running callback, or nil
}

// hold is a callback that has taken long.
type hold struct {
	since, until time.Duration
	event        *string
}

// begin marks the start of a callback, which may be within another one.
func (w *loopWork) begin() {
	if w.depth++; w.depth == 1 {
		w.start(monotonic())
	}
}

// beginAt is begin, for a caller that knows the time.
func (w *loopWork) beginAt(now time.Duration) {
	if w.depth++; w.depth == 1 {
		w.start(now)
	}
}

// end marks the end of the callback that the last begin has started.
func (w *loopWork) end() {
	if w.depth--; w.depth == 0 {
		w.stop(monotonic())
	}
}

// start marks the start of an outermost callback.
func (w *loopWork) start(now time.Duration) {
	w.began = now
	w.done += min(now-w.ended, maxGap)
	w.since.Store(int64(now))
	w.mark.Store(int64(w.done - now))
}

// stop marks its end.
func (w *loopWork) stop(now time.Duration) {
	w.ended = now
	w.done += now - w.began
	event := w.event.Load()
	if now-w.began >= w.limit {
		w.held.Store(&hold{w.began, now, event})
	}
	if event != nil {
		w.event.Store(nil)
	}
	w.mark.Store(int64(w.done))
}

// total returns the time in which the loop has worked until now. Safe for
// concurrent use.
func (w *loopWork) total() time.Duration {
	total := int64(monotonic())
	if mark := w.mark.Load(); mark < 0 {
		total += mark
	} else {
		total = mark
	}
	// A loop that the system suspends between the end of a callback and its mark
	// seems to work on. The total never goes back.
	for {
		shown := w.shown.Load()
		if total <= shown {
			return time.Duration(shown)
		}
		if w.shown.CompareAndSwap(shown, total) {
			return time.Duration(total)
		}
	}
}

// running returns the start of the running callback, or 0. Safe for concurrent
// use.
func (w *loopWork) running() (since time.Duration) {
	if w.mark.Load() >= 0 {
		return 0
	}
	return time.Duration(w.since.Load())
}

// NoteEvent records, for a Stall, that the caller handles a message of that
// event. It does nothing off c's loop. event must not change afterwards. Safe for
// concurrent use.
func (c *Conn) NoteEvent(event *string) {
	if s := c.shard; s != nil && s.work.limit < noLimit && s.onLoop() {
		s.work.event.Store(event)
	}
}
