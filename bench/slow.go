//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

const (
	// slowMessages is what each stalled client is given to hold.
	slowMessages = 100
	// slowQueue is the least queue bound: what clients hold before they are all
	// stalled must fit, too.
	slowQueue = 4096
)

// runSlow measures what the backlog of stalled clients costs, and what slow
// members do to others.
func runSlow(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(1000)
	beside := *o
	o.queue = max(o.queue, slowQueue)
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
	o.progress.expect(o.rounds, 5*time.Second)
	for round := range o.rounds {
		o.progress.step("slow, round %d of %d", round+1, o.rounds)
		if err := slowRound(ctx, o, t); err != nil {
			return nil, err
		}
	}
	more, err := besideSlow(ctx, &beside)
	return append([]*table{t}, more...), err
}

// besideSlow measures what slow members do to the others of their room, and to
// the server's memory.
func besideSlow(ctx context.Context, o *options) ([]*table, error) {
	if o.stalled == 0 && o.trickle == 0 {
		o.stalled, o.trickle = 5, 5
	}
	if o.rates == "" {
		o.rates = "20"
	}
	o.compare = true
	tables, err := runFanout(ctx, o)
	for _, t := range tables {
		t.command = "slow-beside" + t.command[len("fanout"):]
	}
	return tables, err
}

func slowRound(ctx context.Context, o *options, t *table) error {
	frame := serverFrameBytes(o.size)
	cfg := control.Config{QueueBytes: int64(o.queue) * int64(frame)}
	srv, g, stop, err := start(ctx, o, o.path, o.conns, cfg, func(int) traffic { return silent{} })
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
		t.add(o.path, o.conns, frame, since.name, held, heap, ratio(heap, held), held*float64(frame))
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
