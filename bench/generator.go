//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
)

// generator is the load generator: some loops that share the connections.
type generator struct {
	loops []*loop
	wg    sync.WaitGroup
	conns int

	before uint64 // connections opened before the last reset
}

// newGenerator returns a generator of n loops for at most conns connections to
// addr, an IPv4 loopback address. The loops run until stop.
func newGenerator(addr string, n, conns int, deflate bool, t func(l int) traffic) (*generator, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().Is4() || !ap.Addr().IsLoopback() {
		return nil, fmt.Errorf("bench: %q is not an IPv4 loopback address", addr)
	}
	g := &generator{}
	for i := range n {
		l, err := newLoop(unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, conns/n+1, deflate)
		if err != nil {
			g.stop()
			return nil, err
		}
		l.traffic = t(i)
		l.number = func(index int) int { return index*n + i }
		g.loops = append(g.loops, l)
		g.wg.Go(l.run) // owned by the generator: stop ends it and waits
	}
	return g, nil
}

// stop closes all connections and ends the loops.
func (g *generator) stop() {
	for _, l := range g.loops {
		l.do(nil)
	}
	g.wg.Wait()
}

// each runs f on every loop and waits.
func (g *generator) each(f func(i int, l *loop)) {
	var wg sync.WaitGroup
	for i, l := range g.loops {
		wg.Add(1)
		l.do(func() {
			defer wg.Done()
			f(i, l)
		})
	}
	wg.Wait()
}

// share returns loop i's part of n connections.
func (g *generator) share(i, n int) int {
	return (n + len(g.loops) - 1 - i) / len(g.loops)
}

// chooseStalled decides which of the connections yet to be opened will stall,
// by their number among all.
func (g *generator) chooseStalled(which func(n int) bool) {
	g.each(func(_ int, l *loop) {
		l.stalls = func(index int) bool { return which(l.number(index)) }
	})
}

// stall makes the connections that were chosen read no more.
func (g *generator) stall() {
	g.each(func(_ int, l *loop) {
		for index := range l.conns {
			if l.stalls(index) {
				l.stall(index)
			}
		}
	})
}

// trickle makes the first n of the stalled connections read a little at a time.
func (g *generator) trickle(n int) {
	var mu sync.Mutex
	g.each(func(_ int, l *loop) {
		mu.Lock()
		defer mu.Unlock()
		var trickling []int32
		for index := range l.conns {
			if l.conns[index].phase == phaseStalled && n > 0 {
				trickling = append(trickling, int32(index))
				n--
			}
		}
		if len(trickling) > 0 {
			l.due, l.tick = control.Now(), func(now int64) int64 { return l.sip(trickling, now) }
		}
	})
}

// connect opens connections until there are n, and waits for them.
func (g *generator) connect(ctx context.Context, n int) error {
	for i, l := range g.loops {
		more := g.share(i, n) - g.share(i, g.conns)
		l.do(func() { l.toOpen += more })
	}
	g.conns = n
	return g.await(ctx, func() bool { return g.sum().opened-g.before >= uint64(n) })
}

// await waits for a condition, or until a loop has failed.
func (g *generator) await(ctx context.Context, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !cond() {
		if err := g.err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: waiting in vain: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return g.err()
}

// err returns what failed on any loop.
func (g *generator) err() error {
	var errs []error
	for _, l := range g.loops {
		errs = append(errs, l.err())
	}
	return errors.Join(errs...)
}

// tally is a snapshot of what the generator has seen.
type tally struct {
	at                                                       int64 // control.Now
	cpu                                                      time.Duration
	opened, ended, messages, lost, disordered, reads, writes uint64
}

// sum takes a snapshot.
func (g *generator) sum() tally {
	t := tally{at: control.Now(), cpu: control.CPUTime()}
	for _, l := range g.loops {
		t.opened += l.opened.Load()
		t.ended += l.ended.Load()
		t.messages += l.messages.Load()
		t.lost += l.lost.Load()
		t.disordered += l.disordered.Load()
		t.reads += l.reads.Load()
		t.writes += l.writes.Load()
	}
	return t
}

// window is what happened between two snapshots on both sides. The sides are
// not asked at the very same time, so compare rates, not counts.
type window struct {
	client  tally          // differences
	server  control.Report // differences, where that makes sense
	elapsed time.Duration
	rtt     histogram // see collect
	last    histogram
	late    histogram
}

// perSecond is n of the load generator's as a rate.
func (w *window) perSecond(n uint64) float64 {
	return float64(n) / time.Duration(w.client.at).Seconds()
}

// perMessage divides a rate of the server's by the message rate that the load
// generator has seen.
func (w *window) perMessage(n float64) float64 {
	return n / w.elapsed.Seconds() / w.perSecond(max(w.client.messages, 1))
}

// serverMicros is the server's CPU time for one message.
func (w *window) serverMicros() float64 { return w.perMessage(micros(w.server.CPU)) }

// measure lets the load run for warmup, and then measures it. The latencies are
// to be collected when the load has ended.
func (g *generator) measure(ctx context.Context, srv *server, o *timing) (*window, error) {
	if err := wait(ctx, o.warmup); err != nil {
		return nil, err
	}
	if o.cpuprofile != "" {
		if _, err := srv.call(control.Command{Name: "profile", File: o.cpuprofile}); err != nil {
			return nil, err
		}
	}
	g.begin()
	before, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	c0 := g.sum()
	if err := wait(ctx, o.duration); err != nil {
		return nil, err
	}
	c1 := g.sum()
	after, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	if o.cpuprofile != "" {
		if _, err := srv.call(control.Command{Name: "profile"}); err != nil {
			return nil, err
		}
	}
	w := &window{elapsed: time.Duration(after.At - before.At)}
	g.end()
	w.client = tally{
		at: c1.at - c0.at, cpu: c1.cpu - c0.cpu, messages: c1.messages - c0.messages,
		reads: c1.reads - c0.reads, writes: c1.writes - c0.writes,
	}
	w.server = *after
	w.server.CPU -= before.CPU
	w.server.Writes -= before.Writes
	w.server.ReadCalls -= before.ReadCalls
	w.server.WriteCalls -= before.WriteCalls
	w.server.Switches -= before.Switches
	w.server.WakeUps -= before.WakeUps
	w.server.Tasks -= before.Tasks
	return w, g.err()
}

// begin and end bound the time of which latencies are recorded: of what was due
// in it.
func (g *generator) begin() {
	g.each(func(_ int, l *loop) {
		l.rtt, l.last, l.late = newHistogram(), newHistogram(), newHistogram()
		l.from, l.until = control.Now(), never
	})
}

func (g *generator) end() {
	g.each(func(_ int, l *loop) { l.until = control.Now() })
}

// collect takes the latencies, of what was due in the window and has come.
func (w *window) collect(g *generator) {
	w.rtt, w.last, w.late = newHistogram(), newHistogram(), newHistogram()
	var mu sync.Mutex
	g.each(func(_ int, l *loop) {
		mu.Lock()
		defer mu.Unlock()
		w.rtt.add(l.rtt)
		w.last.add(l.last)
		w.late.add(l.late)
	})
}

// patience is how long nothing more must arrive before messages count as missing.
const patience = 3 * time.Second

// missing waits until the generator has what it should have, or until nothing
// more comes, and returns how many messages did not come.
func (g *generator) missing(ctx context.Context, count func(tally) (want, have uint64)) (uint64, error) {
	progress, seen := time.Now(), uint64(0)
	for {
		want, have := count(g.sum())
		if have > seen {
			progress, seen = time.Now(), have
		}
		missing := want - min(have, want)
		if err := g.err(); err != nil || missing == 0 || time.Since(progress) > patience {
			return missing, err
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// wait sleeps for d unless ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
