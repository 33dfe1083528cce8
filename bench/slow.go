//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var slowCommand = command{
	name:  "slow",
	about: "heap for each stalled client that holds 100 messages, and what slow members do to others",
	help: `Clients join a room and never read. When each has something queued, 100 more
messages are published, and the heap that these take is measured: the frames are
shared by all queues, so it is far less than a copy for each client.`,
	example: "bench slow -conns 1000",
	new:     func() runner { return newSlowRun() },
}

const (
	// slowMessages is what each stalled client is given to hold.
	slowMessages = 100
	// slowQueue is the least queue bound: what clients hold before they are all
	// stalled must fit, too.
	slowQueue = 4096
)

// slowRun is a run of slow.
type slowRun struct {
	conns, size, rounds int
	rates               string
	stalled, trickle    float64 // percent
	timing
}

func newSlowRun() *slowRun { return &slowRun{size: 512, rounds: 1, timing: defaultTiming()} }

func (o *slowRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	ratesFlag(fs, &o.rates)
	slowFlags(fs, &o.stalled, &o.trickle)
	o.timing.flags(fs)
}

func (o *slowRun) validate(*session) error {
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1), validSlow(o.stalled, o.trickle, false), validRates(o.rates))
}

// run measures what the backlog of stalled clients costs, and what slow
// members do to others.
func (o *slowRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 1000)
	beside := *s
	s.queue = max(s.queue, slowQueue)
	t := &table{command: "slow", title: "Stalled clients that hold messages: heap after garbage collection", columns: []column{
		{"path", "path", "%s"},
		{"conns", "clients", "%d"},
		{"frame_bytes", "frame B", "%d"},
		{"measured", "measured", "%s"},
		{"held", "messages held", "%.1f"},
		{"heap_bytes", "heap B/client", "%.0f"},
		{"heap_bytes_message", "heap B/message", "%.1f"},
		{"copies_bytes", "copies B/client", "%.0f"},
	}, charts: []chart{{
		Kind: report.Bars, X: []string{"measured", "path", "conns", "frame_bytes"}, Y: []string{"heap_bytes", "copies_bytes"},
		Axis: "bytes for each client",
	}}}
	s.progress.expect(o.rounds, 5*time.Second)
	for round := range o.rounds {
		s.progress.step("slow, round %d of %d", round+1, o.rounds)
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	more, err := o.beside(ctx, &beside)
	return append([]*table{t}, more...), err
}

// beside measures what slow members do to the others of their room, and to
// the server's memory.
func (o *slowRun) beside(ctx context.Context, s *session) ([]*table, error) {
	f := newFanoutRun()
	f.conns, f.size, f.rounds, f.timing = o.conns, o.size, o.rounds, o.timing
	f.rates, f.stalled, f.trickle, f.compare = cmp.Or(o.rates, "20"), o.stalled, o.trickle, true
	if f.stalled == 0 && f.trickle == 0 {
		f.stalled, f.trickle = 5, 5
	}
	tables, err := f.run(ctx, s)
	for _, t := range tables {
		t.command = "slow-beside" + t.command[len("fanout"):]
	}
	return tables, err
}

func (o *slowRun) round(ctx context.Context, s *session, t *table) error {
	frame := serverFrameBytes(o.size)
	cfg := control.Config{QueueBytes: int64(s.queue) * int64(frame)}
	srv, g, stop, err := s.start(ctx, s.path, o.conns, cfg, func(int) traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	g.chooseStalled(func(int) bool { return true })
	if err := g.connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	g.stall()
	idle, err := srv.call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if err := backlogAll(ctx, srv, o.conns, o.size); err != nil {
		return err
	}
	before, err := srv.call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if _, err := srv.call(control.Command{Name: "fill", Size: o.size, Count: slowMessages}); err != nil {
		return err
	}
	after, err := srv.call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if after.Dropped > 0 {
		return fmt.Errorf("%d messages were dropped: a higher -queue is needed", after.Dropped)
	}
	for _, since := range []struct {
		*control.Report
		name string
	}{{idle, "since they were idle"}, {before, fmt.Sprintf("the last %d", slowMessages)}} {
		clients := float64(o.conns)
		held := float64(after.QueuedBytes-since.QueuedBytes) / float64(frame) / clients
		heap := (float64(after.HeapAlloc) - float64(since.HeapAlloc)) / clients
		t.add(s.path, o.conns, frame, since.name, held, heap, ratio(heap, held), held*float64(frame))
	}
	return g.err()
}

// backlogAll publishes until each client has something queued.
func backlogAll(ctx context.Context, srv *server, clients, size int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// Few at a time, so that those that stall first hold few more.
		if _, err := srv.call(control.Command{Name: "fill", Size: size, Count: max(1, 2048/size)}); err != nil {
			return err
		}
		stuck, err := stalled(ctx, srv, clients)
		if err != nil || stuck {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not all of %d clients have stalled: %w", clients, ctx.Err())
		}
	}
}

// stalled reports whether so many clients have something queued, and whether it
// stays queued for longer than a delayed acknowledgement takes: until the first
// of these a socket may be full that takes more a moment later.
func stalled(ctx context.Context, srv *server, clients int) (bool, error) {
	before, err := srv.call(control.Command{Name: "queues"})
	if err != nil || before.Backlogged != clients {
		return false, err
	}
	if err := wait(ctx, 250*time.Millisecond); err != nil {
		return false, err
	}
	after, err := srv.call(control.Command{Name: "queues"})
	if err != nil {
		return false, err
	}
	return after.Backlogged == clients && after.QueuedBytes == before.QueuedBytes, nil
}
