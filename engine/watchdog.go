package engine

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Stall is a callback that holds an event loop for too long: none of the loop's
// connections is served meanwhile.
type Stall struct {
	Loop  int           // the loop's index
	Held  time.Duration // time for which the callback has held the loop when it was found
	Event string        // event of the last message that the callback handles; "" if unknown
	Stack string        // of the loop's goroutine; "" if the callback has returned, or within stacksEvery of another
}

const (
	// looksPerStall is the number of looks in the time of a stall. A stall is
	// found one look late at most.
	looksPerStall = 2
	// stacksEvery is the shortest time between two profiles of all goroutines.
	stacksEvery = time.Second
)

// watchdog finds stalls. It looks at all loops several times in the time of a
// stall, on the goroutine of the ticks.
//
// A look that comes late shows that the process did not run: it was stopped,
// the machine was suspended, or other processes had the processors. No callback
// is to blame for that time, so it does not count. If a look is late by a whole
// interval, nothing counts since the one before it.
//
// It is confined to that goroutine, except for reports.
type watchdog struct {
	eng      *Engine
	limit    time.Duration // Config.LoopStallThreshold; 0 is off
	interval time.Duration // between two looks; the tick without a limit

	looked time.Duration // time of the last look
	late   time.Duration // time before it in which the process did not run
	absent time.Duration // the same, in total
	loops  []watched
	found  []stalled // not reported yet; one of each loop at most

	reports   sync.WaitGroup
	reporting atomic.Bool   // a goroutine reports
	profiled  time.Duration // time of the last profile; confined to that goroutine
}

// watched is the callback that the last look has seen on a loop.
type watched struct {
	since    time.Duration
	absent   time.Duration // watchdog.absent at its start
	reported bool
}

// stalled is a stall to report.
type stalled struct {
	shard *Shard
	since time.Duration
	Stall
}

// newWatchdog fits the looks into the ticks.
func newWatchdog(e *Engine) *watchdog {
	w := &watchdog{eng: e, limit: e.cfg.LoopStallThreshold, interval: e.tickTime, loops: make([]watched, e.cfg.Loops)}
	if w.limit > 0 {
		looks := (e.tickTime*looksPerStall + w.limit - 1) / w.limit
		w.interval = e.tickTime / max(1, looks)
	}
	return w
}

// pulse ticks if a tick is due, looks for stalls, and returns the time until
// the next call.
func (e *Engine) pulse() time.Duration {
	now, tick := monotonic(), e.tickInterval()
	interval := min(e.watch.interval, tick)
	if e.ticked == 0 || now-e.ticked >= tick-interval/2 {
		e.ticked = now
		e.tick()
	}
	e.watch.look(monotonic())
	return interval
}

// run looks until done is closed. It is for an engine without gnet's ticker.
func (w *watchdog) run(done <-chan struct{}) {
	if w.limit == 0 {
		return
	}
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			w.look(monotonic())
		}
	}
}

// look finds the loops that are held.
func (w *watchdog) look(now time.Duration) {
	if w.limit == 0 {
		return
	}
	passed := now - w.looked
	w.late = max(0, passed-w.interval-w.interval/4)
	if w.late > w.interval {
		w.late = passed
	}
	w.looked, w.absent = now, w.absent+w.late
	for _, s := range w.eng.shards {
		w.lookAt(s, now)
	}
	w.report()
}

// lookAt looks at one loop.
func (w *watchdog) lookAt(s *Shard, now time.Duration) {
	seen := &w.loops[s.index]
	since := s.work.running() // before held, which has the callback if it returns meanwhile
	if h := s.work.held.Swap(nil); h != nil {
		w.judge(s, seen, h.since, h.until, h.event)
		if h.since == since {
			return
		}
	}
	if since > 0 {
		w.judge(s, seen, since, now, s.work.event.Load())
	}
}

// judge counts and reports the callback that runs since, if it is a stall.
func (w *watchdog) judge(s *Shard, seen *watched, since, until time.Duration, event *string) {
	if since != seen.since {
		*seen = watched{since: since, absent: w.absent - min(w.late, until-since)}
	}
	held := until - since - (w.absent - seen.absent)
	if held < w.limit {
		return
	}
	s.stats.longestStall.raise(uint64(held))
	if seen.reported {
		return
	}
	seen.reported = true
	s.stats.stalls.add(1)
	for _, f := range w.found {
		if f.shard == s {
			return
		}
	}
	f := stalled{s, since, Stall{Loop: s.index, Held: held}}
	if event != nil {
		f.Event = *event
	}
	w.found = append(w.found, f)
}

// report starts the goroutine that reports what was found. There is one at a
// time, because the application's log handler may block.
func (w *watchdog) report() {
	if len(w.found) == 0 || w.reporting.Swap(true) {
		return
	}
	found := w.found
	w.found = nil
	w.reports.Go(func() { // Engine.Run waits for it
		defer w.reporting.Store(false)
		w.addStacks(found)
		for i := range found {
			w.reportOne(&found[i].Stall)
		}
	})
}

// addStacks adds the stacks of the callbacks that still run.
func (w *watchdog) addStacks(found []stalled) {
	now := monotonic()
	if w.profiled > 0 && now-w.profiled < stacksEvery {
		return
	}
	var profile []byte
	for i := range found {
		f := &found[i]
		if f.shard.work.running() != f.since {
			continue
		}
		if profile == nil {
			w.profiled = now
			profile = goroutineProfile()
		}
		if f.shard.work.running() == f.since {
			f.Stack = f.shard.stackIn(profile)
		}
	}
}

// reportOne logs a stall and passes it on.
func (w *watchdog) reportOne(st *Stall) {
	defer w.eng.guard("stall")
	logger := w.eng.cfg.Logger
	attrs := []any{slog.Int("loop", st.Loop), slog.Duration("held", st.Held), slog.String("event", st.Event)}
	if st.Stack == "" { // with a text of its own, so that it does not suppress those with a stack
		logger.Warn("ws: event loop was held", attrs...)
	} else {
		logger.Warn("ws: event loop is held", append(attrs, slog.String("stack", st.Stack))...)
	}
	w.eng.observer.OnStall(*st)
}
