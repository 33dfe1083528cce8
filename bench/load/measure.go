//go:build linux

package load

import (
	"context"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// Tally is a snapshot of the generator's counters.
type Tally struct {
	at                                                       int64 // control.Now
	CPU                                                      time.Duration
	opened, Ended, Messages, Lost, Disordered, reads, writes uint64
}

// Sum takes a snapshot.
func (g *Generator) Sum() Tally {
	t := Tally{at: control.Now(), CPU: control.CPUTime()}
	for _, l := range g.Loops {
		t.opened += l.opened.Load()
		t.Ended += l.ended.Load()
		t.Messages += l.messages.Load()
		t.Lost += l.Lost.Load()
		t.Disordered += l.Disordered.Load()
		t.reads += l.reads.Load()
		t.writes += l.writes.Load()
	}
	return t
}

// Window holds the difference between two snapshots of each side. The snapshots of
// the two sides differ a little in time, so compare rates, not counts.
type Window struct {
	Client  Tally          // differences
	Server  control.Report // differences, where that makes sense
	elapsed time.Duration
	RTT     result.Histogram // see collect
	Last    result.Histogram
	Late    result.Histogram
}

// PerSecond is n of the load generator's as a rate.
func (w *Window) PerSecond(n uint64) float64 {
	return float64(n) / time.Duration(w.Client.at).Seconds()
}

// PerMessage divides a rate of the server's by the message rate that the load
// generator has seen.
func (w *Window) PerMessage(n float64) float64 {
	return n / w.elapsed.Seconds() / w.PerSecond(max(w.Client.Messages, 1))
}

// ServerMicros is the server's CPU time for one message.
func (w *Window) ServerMicros() float64 { return w.PerMessage(result.Micros(w.Server.CPU)) }

// Measure lets the load run for warmup, and then measures it. The latencies are
// to be collected when the load has ended.
func (g *Generator) Measure(ctx context.Context, srv *server.Process, o *Timing) (*Window, error) {
	if err := Wait(ctx, o.Warmup); err != nil {
		return nil, err
	}
	if o.cpuprofile != "" {
		if _, err := srv.Call(control.Command{Name: "profile", File: o.cpuprofile}); err != nil {
			return nil, err
		}
	}
	g.Begin()
	before, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	c0 := g.Sum()
	if err := Wait(ctx, o.Duration); err != nil {
		return nil, err
	}
	c1 := g.Sum()
	after, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	if o.cpuprofile != "" {
		if _, err := srv.Call(control.Command{Name: "profile"}); err != nil {
			return nil, err
		}
	}
	w := &Window{elapsed: time.Duration(after.At - before.At)}
	g.End()
	w.Client = Tally{
		at: c1.at - c0.at, CPU: c1.CPU - c0.CPU, Messages: c1.Messages - c0.Messages,
		reads: c1.reads - c0.reads, writes: c1.writes - c0.writes,
	}
	w.Server = *after
	w.Server.CPU -= before.CPU
	w.Server.Writes -= before.Writes
	w.Server.ReadCalls -= before.ReadCalls
	w.Server.WriteCalls -= before.WriteCalls
	w.Server.Switches -= before.Switches
	w.Server.WakeUps -= before.WakeUps
	w.Server.Tasks -= before.Tasks
	return w, g.Err()
}

// Begin starts the time whose messages are recorded in the histograms: those that
// are due in it.
func (g *Generator) Begin() {
	g.Each(func(_ int, l *Loop) {
		l.RTT, l.Last, l.Late = result.NewHistogram(), result.NewHistogram(), result.NewHistogram()
		l.From, l.Until = control.Now(), Never
	})
}

// End ends that time.
func (g *Generator) End() {
	g.Each(func(_ int, l *Loop) { l.Until = control.Now() })
}

// Collect takes the latencies of the messages that were due in the window and have
// arrived.
func (w *Window) Collect(g *Generator) {
	w.RTT, w.Last, w.Late = result.NewHistogram(), result.NewHistogram(), result.NewHistogram()
	var mu sync.Mutex
	g.Each(func(_ int, l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		w.RTT.Add(l.RTT)
		w.Last.Add(l.Last)
		w.Late.Add(l.Late)
	})
}

// Patience is the time without an arrival after which messages count as missing.
const Patience = 3 * time.Second

// Missing waits until the generator has all messages that it should have, or until
// no more arrive, and returns the number of messages that did not arrive.
func (g *Generator) Missing(ctx context.Context, count func(Tally) (want, have uint64)) (uint64, error) {
	progress, seen := time.Now(), uint64(0)
	for {
		want, have := count(g.Sum())
		if have > seen {
			progress, seen = time.Now(), have
		}
		missing := want - min(have, want)
		if err := g.Err(); err != nil || missing == 0 || time.Since(progress) > Patience {
			return missing, err
		}
		if err := Wait(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
}
