//go:build linux

package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/chat"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// warmTime is the time in which the server publishes without a pause to warm up.
const warmTime = 3 * time.Second

// spareConns is the number of descriptors for all but the crowd and the healthy clients.
const spareConns = 1000

// run is a soak under way. Not safe for concurrent use, except call.
type run struct {
	*runner
	session *command.Session
	paths   []string
	attacks []string
	began   time.Time

	mu      sync.Mutex      // one call at a time
	srv     *server.Process // guarded by mu
	samples []control.Report
	base    *control.Report // with the healthy clients alone, before the first cycle
	warmed  uint64          // messages that the current manager dropped before the first cycle

	chats  []*chat.Group // one for each path
	read   readers
	cycles []cycle
	counts counts
	stops  []func() // in reverse order
}

// counts are the sums of all cycles.
type counts struct {
	missing, disordered, stuck, lost, requests, refused, dropped uint64
	closed                                                       int
	reasons                                                      []string
	rtt                                                          result.Histogram
	churned, storms, drains, attackers                           uint64
}

// newRun starts the server and the healthy clients.
func newRun(ctx context.Context, o *runner, s *command.Session, paths []string) (*run, error) {
	r := &run{
		runner: o, session: s, paths: paths, attacks: strings.Split(o.attacks, ","), began: time.Now(),
		counts: counts{rtt: result.NewHistogram()},
	}
	var err error
	r.srv, err = s.Launch(ctx, o.conns+o.healthy+o.readers+spareConns, control.Config{
		Mode: control.Soak, Authenticate: true, MaxConnections: 2 * maxConns, Leak: o.leak, ProfileHeap: o.memprofile != "",
	})
	if err != nil {
		return nil, err
	}
	r.stops = append(r.stops, r.srv.Stop)
	if err := r.warm(ctx); err != nil {
		r.stop()
		return nil, fmt.Errorf("warm up: %w", err)
	}
	var addresses []string
	for _, path := range paths {
		addresses = append(addresses, r.srv.Addr(path))
	}
	if r.read, err = newReaders(ctx, addresses, o.readers); err != nil {
		r.stop()
		return nil, err
	}
	r.stops = append(r.stops, r.read.stop)
	for i, path := range paths {
		conns := (o.healthy + i) / len(paths)
		group := chat.NewGroup(chat.Options{
			Conns: conns, Rooms: o.rooms, Size: o.size, Rate: o.rate / float64(len(paths)), Moving: 2, Reconnecting: 2,
		}, s.ClientLoops)
		group.Generator, err = load.NewGenerator(r.srv.Addr(path), s.ClientLoops, conns, false, group.Traffic)
		if err != nil {
			r.stop()
			return nil, err
		}
		r.stops = append(r.stops, group.Stop)
		r.chats = append(r.chats, group)
		if err := group.Enter(ctx); err != nil {
			r.stop()
			return nil, fmt.Errorf("healthy clients: %w", err)
		}
	}
	if r.base, err = r.call(control.Command{Name: "settle"}); err != nil {
		r.stop()
		return nil, err
	}
	r.warmed = r.base.Dropped
	return r, nil
}

// warm lets all clients have messages queued at the same time. The server keeps the free queues
// of up to 8,192 clients for ever. Without this step their number would grow over the cycles, each
// time that more clients than ever before have something queued at once.
func (r *run) warm(ctx context.Context) error {
	conns := r.conns + r.healthy
	crowd, err := newCrowd(ctx, r.srv.Addr(r.paths[0]), r.session.ClientLoops, conns, 1)
	if err != nil {
		return err
	}
	defer crowd.Stop()
	c := cycle{run: r, crowd: crowd}
	publish := control.Command{Name: "publish", Size: r.size, Rooms: 1} // without a pause
	return crowd.stall(func() error {
		return c.beside(publish, func() error { return load.Wait(ctx, warmTime) })
	})
}

func (r *run) stop() {
	for _, stop := range slices.Backward(r.stops) {
		stop()
	}
}

// call sends one command to the server. Safe for concurrent use.
func (r *run) call(c control.Command) (*control.Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.srv.Call(c)
}

// all runs the cycles: those of the first half on one manager, and those of the
// second with a drain each.
func (r *run) all(ctx context.Context) error {
	stop := r.sampling(ctx)
	defer stop()
	r.session.Progress.Expect(int(r.duration/r.cycle), r.cycle)
	for half, part := range []string{oneManager, manyManagers} {
		until := r.began.Add(r.duration * time.Duration(half+1) / 2)
		for n := 0; n < leastCycles || time.Now().Before(until); n++ {
			i := len(r.cycles)
			c := cycle{
				run: r, index: i, part: part, attack: r.attacks[i%len(r.attacks)], path: r.paths[i%len(r.paths)],
			}
			r.session.Progress.Step("soak, cycle %d, %s, attack %s", i+1, part, c.attack)
			if err := c.all(ctx); err != nil {
				return fmt.Errorf("cycle %d: %w", i+1, err)
			}
			r.cycles = append(r.cycles, c)
		}
	}
	return nil
}

// sampling looks at the server in regular intervals until the returned function is
// called, which waits.
func (r *run) sampling(ctx context.Context) (stop func()) {
	over, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		ticker := time.NewTicker(r.sample)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			sample, err := r.call(control.Command{Name: "report"})
			if err != nil {
				return // the cycle fails, too
			}
			r.samples = append(r.samples, *sample)
		}
	}()
	return func() { close(over); <-done }
}
