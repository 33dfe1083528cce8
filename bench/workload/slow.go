//go:build linux

package workload

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// SlowCommand is the command slow.
var SlowCommand = command.Command{
	Name:  "slow",
	About: "heap for each stalled client that holds 100 messages, and the effect of slow members on others",
	Help: `Clients join a room and never read. When each has something queued, 100 more
messages are published, and the heap that these take is measured: the frames are
shared by all queues, so it is far less than a copy for each client.`,
	Example: "bench slow -conns 1000",
	New:     func() command.Runner { return newSlowRun() },
}

const (
	// slowMessages is the number of messages published to each stalled client.
	slowMessages = 100
	// slowQueue is the lowest queue bound: the messages that clients hold before all
	// are stalled must fit, too.
	slowQueue = 4096
)

// slowRun is a run of slow.
type slowRun struct {
	conns, size, rounds int
	rates               string
	stalled, trickle    float64 // percent
	load.Timing
}

func newSlowRun() *slowRun { return &slowRun{size: 512, rounds: 1, Timing: load.DefaultTiming()} }

func (o *slowRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	command.RatesFlag(fs, &o.rates)
	command.SlowFlags(fs, &o.stalled, &o.trickle)
	o.Timing.Flags(fs)
}

func (o *slowRun) Validate(*command.Session) error {
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1),
		command.ValidSlow(o.stalled, o.trickle, false), command.ValidRates(o.rates))
}

// Run measures the memory of the backlog of stalled clients, and the effect of slow
// members on others.
func (o *slowRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 1000)
	beside := *s
	s.Queue = max(s.Queue, slowQueue)
	t := &result.Table{
		Command: "slow", Title: "Stalled clients that hold messages: heap after garbage collection",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "clients", "%d"},
			{"frame_bytes", "frame B", "%d"},
			{"measured", "measured", "%s"},
			{"held", "messages held", "%.1f"},
			{"heap_bytes", "heap B/client", "%.0f"},
			{"heap_bytes_message", "heap B/message", "%.1f"},
			{"copies_bytes", "copies B/client", "%.0f"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, X: []string{"measured", "path", "conns", "frame_bytes"},
			Y:    []string{"heap_bytes", "copies_bytes"},
			Axis: "bytes for each client",
		}},
	}
	s.Progress.Expect(o.rounds, 5*time.Second)
	for round := range o.rounds {
		s.Progress.Step("slow, round %d of %d", round+1, o.rounds)
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	more, err := o.beside(ctx, &beside)
	return append([]*result.Table{t}, more...), err
}

// beside measures the effect of slow members on the others of their room and on the
// server's memory.
func (o *slowRun) beside(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	f := NewFanoutRun()
	f.Conns, f.Size, f.rounds, f.Timing = o.conns, o.size, o.rounds, o.Timing
	f.Rates, f.stalled, f.trickle, f.compare = cmp.Or(o.rates, "20"), o.stalled, o.trickle, true
	if f.stalled == 0 && f.trickle == 0 {
		f.stalled, f.trickle = 5, 5
	}
	tables, err := f.Run(ctx, s)
	for _, t := range tables {
		t.Command = "slow-beside" + t.Command[len("fanout"):]
	}
	return tables, err
}

func (o *slowRun) round(ctx context.Context, s *command.Session, t *result.Table) error {
	frame := load.ServerFrameBytes(o.size)
	cfg := control.Config{QueueBytes: int64(s.Queue) * int64(frame)}
	srv, g, stop, err := s.Start(ctx, s.Path, o.conns, cfg, func(int) load.Traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	g.ChooseStalled(func(int) bool { return true })
	if err := g.Connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	g.Stall()
	idle, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if err := backlogAll(ctx, srv, o.conns, o.size); err != nil {
		return err
	}
	before, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	if _, err := srv.Call(control.Command{Name: "fill", Size: o.size, Count: slowMessages}); err != nil {
		return err
	}
	after, err := srv.Call(control.Command{Name: "settle"})
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
		t.Add(s.Path, o.conns, frame, since.name, held, heap, result.Ratio(heap, held), held*float64(frame))
	}
	return g.Err()
}

// backlogAll publishes until each client has something queued.
func backlogAll(ctx context.Context, srv *server.Process, clients, size int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		// Few at a time, so that those that stall first hold few more.
		if _, err := srv.Call(control.Command{Name: "fill", Size: size, Count: max(1, 2048/size)}); err != nil {
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

// stalled reports whether exactly clients clients have something queued, and
// whether it stays queued for longer than a delayed acknowledgement takes:
// until the first of these a socket may be full that takes more a moment later.
func stalled(ctx context.Context, srv *server.Process, clients int) (bool, error) {
	before, err := srv.Call(control.Command{Name: "queues"})
	if err != nil || before.Backlogged != clients {
		return false, err
	}
	if err := load.Wait(ctx, 250*time.Millisecond); err != nil {
		return false, err
	}
	after, err := srv.Call(control.Command{Name: "queues"})
	if err != nil {
		return false, err
	}
	return after.Backlogged == clients && after.QueuedBytes == before.QueuedBytes, nil
}
