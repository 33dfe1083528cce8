//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

// Generator is the load generator: some loops that share the connections.
type Generator struct {
	Loops []*Loop
	wg    sync.WaitGroup
	Conns int

	before uint64 // connections opened before the last reset
}

// NewGenerator returns a generator of n loops for at most conns connections to
// addr, an IPv4 loopback address. The loops run until stop.
func NewGenerator(addr string, n, conns int, deflate bool, t func(l int) Traffic) (*Generator, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().Is4() || !ap.Addr().IsLoopback() {
		return nil, fmt.Errorf("bench: %q is not an IPv4 loopback address", addr)
	}
	g := &Generator{}
	for i := range n {
		l, err := newLoop(unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, conns/n+1, deflate)
		if err != nil {
			g.Stop()
			return nil, err
		}
		l.Traffic = t(i)
		l.Number = func(index int) int { return index*n + i }
		g.Loops = append(g.Loops, l)
		g.wg.Go(l.run) // owned by the generator: stop ends it and waits
	}
	return g, nil
}

// Stop closes all connections and ends the loops.
func (g *Generator) Stop() {
	for _, l := range g.Loops {
		l.Do(nil)
	}
	g.wg.Wait()
}

// Each runs f on every loop and waits.
func (g *Generator) Each(f func(i int, l *Loop)) {
	var wg sync.WaitGroup
	for i, l := range g.Loops {
		wg.Add(1)
		l.Do(func() {
			defer wg.Done()
			f(i, l)
		})
	}
	wg.Wait()
}

// Share returns loop i's part of n connections.
func (g *Generator) Share(i, n int) int {
	return (n + len(g.Loops) - 1 - i) / len(g.Loops)
}

// ChooseStalled decides which of the connections yet to be opened will stall,
// by their number among all.
func (g *Generator) ChooseStalled(which func(n int) bool) {
	g.Each(func(_ int, l *Loop) {
		l.Stalls = func(index int) bool { return which(l.Number(index)) }
	})
}

// Stall makes the connections that were chosen read no more.
func (g *Generator) Stall() {
	g.Each(func(_ int, l *Loop) {
		for index := range l.Conns {
			if l.Stalls(index) {
				l.Stall(index)
			}
		}
	})
}

// Trickle makes the first n of the stalled connections read a little at a time.
func (g *Generator) Trickle(n int) {
	var mu sync.Mutex
	g.Each(func(_ int, l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		var trickling []int32
		for index := range l.Conns {
			if l.Conns[index].Phase == PhaseStalled && n > 0 {
				trickling = append(trickling, int32(index))
				n--
			}
		}
		if len(trickling) > 0 {
			l.Due, l.Tick = control.Now(), func(now int64) int64 { return l.sip(trickling, now) }
		}
	})
}

// Connect opens connections until there are n, and waits for them.
func (g *Generator) Connect(ctx context.Context, n int) error {
	for i, l := range g.Loops {
		more := g.Share(i, n) - g.Share(i, g.Conns)
		l.Do(func() { l.toOpen += more })
	}
	g.Conns = n
	return g.Await(ctx, func() bool { return g.Sum().opened-g.before >= uint64(n) })
}

// Await waits for a condition, or until a loop has failed.
func (g *Generator) Await(ctx context.Context, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !cond() {
		if err := g.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: waiting in vain: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return g.Err()
}

// Err returns the failures of all loops.
func (g *Generator) Err() error {
	var errs []error
	for _, l := range g.Loops {
		errs = append(errs, l.err())
	}
	return errors.Join(errs...)
}

// Wait sleeps for d unless ctx ends first.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Closes returns when the connections got the close code of a server that shuts
// down, and when they ended, in order.
func (g *Generator) Closes() (closed, ended []int64) {
	var mu sync.Mutex
	g.Each(func(_ int, l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		closed = append(closed, l.closeTimes...)
		ended = append(ended, l.endTimes...)
	})
	slices.Sort(closed)
	slices.Sort(ended)
	return closed, ended
}

// States counts the open connections in a state.
func (g *Generator) States(state uint8) int {
	return g.Count(func(c *Conn) bool { return c.State == state && c.Phase == PhaseOpen })
}

// Count counts the connections for which is returns true. It runs on their loops.
func (g *Generator) Count(is func(c *Conn) bool) (sum int) {
	counts := make([]int, len(g.Loops))
	g.Each(func(i int, l *Loop) {
		for index := range l.Conns {
			if is(&l.Conns[index]) {
				counts[i]++
			}
		}
	})
	for _, n := range counts {
		sum += n
	}
	return sum
}

// Authenticate makes the connections yet to be opened show tokens, of users from
// first on.
func (g *Generator) Authenticate(first uint64) {
	g.Each(func(_ int, l *Loop) {
		l.path = func(index int) string { return "/ws?token=" + control.Token(first+uint64(l.Number(index))) }
	})
}

// Place makes the connections yet to be opened show a key: the room of each, but
// for connection 0.
func (g *Generator) Place(rooms []int32) {
	g.Each(func(_ int, l *Loop) {
		l.path = func(index int) string {
			if n := l.Number(index); n > 0 {
				return "/ws?" + strconv.Itoa(int(rooms[n-1]))
			}
			return "/ws"
		}
	})
}

// Query makes the connections yet to be opened show a query, by their number among
// all.
func (g *Generator) Query(of func(n int) string) {
	g.Each(func(_ int, l *Loop) { l.path = func(index int) string { return "/ws?" + of(l.Number(index)) } })
}

// Reserve makes n connections that are closed, for Reopen.
func (g *Generator) Reserve(n int) {
	g.Conns = n
	g.Each(func(i int, l *Loop) {
		for range g.Share(i, n) {
			l.Conns = append(l.Conns, Conn{Phase: PhaseClosed})
		}
	})
}

// Reset ends all connections with a reset, as when a network fails.
func (g *Generator) Reset() {
	g.Each(func(_ int, l *Loop) { l.reset() })
	g.Conns, g.before = 0, g.Sum().opened
}

// Opens returns when attempts to connect have begun and connections have opened
// since the last reset, in order, how long each took from its connect to its 101,
// and how many attempts were refused.
func (g *Generator) Opens() (begins, times []int64, took result.Histogram, refused uint64) {
	took = result.NewHistogram()
	var mu sync.Mutex
	g.Each(func(_ int, l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		begins = append(begins, l.beginTimes...)
		times = append(times, l.openTimes...)
		took.Add(l.connects)
		refused += l.refused
	})
	slices.Sort(begins)
	slices.Sort(times)
	return begins, times, took, refused
}
