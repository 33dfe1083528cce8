//go:build linux

package resume

import (
	"context"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
)

const stallName = "resume-stall"

func stallTable() *result.Table {
	return &result.Table{
		Command: stallName, Title: "Members that do not read for a while, and catch up",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "members", "%d"},
			{"stalled", "stalled", "%d"},
			{"stall_s", "for s", "%.0f"},
			{"messages", "messages", "%d"},
			{"size", "bytes", "%d"},
			{"server_us", "server µs/dlv", "%.2f"},
			{"history_bytes", "history B", "%d"},
			{"queued_bytes", "queued B/stalled", "%.0f"},
			{"heap_bytes", "heap B/stalled", "%.0f"},
			{"rss_bytes", "RSS growth B", "%d"},
			{"replayed", "from the history", "%d"},
			{"caught_ms", "caught up in ms", "%.0f"},
			{"catch_us", "server µs/message", "%.2f"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
			{"gaps", "gaps", "%d"},
		},
	}
}

// stallSome lets some members stall while messages are published, and then read again.
func (o *run) stallSome(ctx context.Context, s *command.Session, t *result.Table) error {
	share := int(100 / o.stalled) // one of this number of members stalls
	stalls := func(n int) bool { return n%share == share/2 }
	published := int(o.stall.Seconds()*o.rate) + warmBursts*warmMessages
	c, err := o.open(ctx, s, 2*published+1000, stalls)
	if err != nil {
		return err
	}
	defer c.stop()
	before := c.g.Sum()
	if _, err := c.srv.Call(control.Command{Name: "fill", Size: o.size, Count: 1}); err != nil { // creates the room
		return err
	}
	c.joinAll(0, "", 0)
	if _, err := c.await(ctx, before, o.conns); err != nil {
		return err
	}
	for range warmBursts {
		if err := c.fillAll(ctx, o); err != nil {
			return err
		}
	}
	return o.publishToStalled(ctx, s, t, c, stalls)
}

// Bursts of messages that are published before any member stalls: the free queues of the loops, which
// all members take from, grow meanwhile, and not in the measured time.
const warmBursts, warmMessages = 3, 64

// fillAll publishes a burst, and waits until all have it.
func (c *crowd) fillAll(ctx context.Context, o *run) error {
	before := c.g.Sum()
	if _, err := c.srv.Call(control.Command{Name: "fill", Size: o.size, Count: warmMessages}); err != nil {
		return err
	}
	_, err := c.await(ctx, before, c.conns*warmMessages)
	return err
}

func (o *run) publishToStalled(ctx context.Context, s *command.Session, t *result.Table, c *crowd,
	stalls func(n int) bool,
) error {
	stalled := 0
	for n := range o.conns {
		if stalls(n) {
			stalled++
		}
	}
	c.g.Stall()
	began, err := c.srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	sum := c.g.Sum()
	if _, err := c.srv.Call(control.Command{Name: "publish", Size: o.size, Rate: o.rate}); err != nil {
		return err
	}
	if err := load.Wait(ctx, o.stall); err != nil {
		return err
	}
	stopped, err := c.srv.Call(control.Command{Name: "stop"})
	if err != nil {
		return err
	}
	messages := int(stopped.Published - began.Published)
	missing, err := c.await(ctx, sum, (o.conns-stalled)*messages)
	if err != nil {
		return err
	}
	full, err := c.srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return err
	}
	read := c.g.Sum().Messages - sum.Messages // by all, also by those that stall
	resumed := control.Now()
	c.resume()
	late, err := c.await(ctx, sum, o.conns*messages)
	if err != nil {
		return err
	}
	end, err := c.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	after := c.g.Sum()
	heap := float64(full.HeapAlloc) - float64(began.HeapAlloc) - float64(full.HistoryMemory-began.HistoryMemory)
	t.Add(s.Path, o.conns, stalled, o.stall.Seconds(), messages, o.size,
		result.Ratio(result.Micros(stopped.CPU-began.CPU), float64((o.conns-stalled)*messages)),
		full.HistoryMemory, float64(full.QueuedBytes)/float64(stalled), heap/float64(stalled),
		int64(full.RSS)-int64(began.RSS), end.Replayed-began.Replayed,
		result.Millis(time.Duration(c.newest()-resumed)),
		result.Ratio(result.Micros(end.CPU-full.CPU), float64(uint64(o.conns*messages)-read)),
		missing+late+after.Lost-sum.Lost, after.Disordered-sum.Disordered, c.gaps())
	return c.g.Err()
}

// resume lets the stalled members read again.
func (c *crowd) resume() {
	c.g.Each(func(_ int, l *load.Loop) {
		for index := range l.Conns {
			if l.Conns[index].Phase == load.PhaseStalled {
				l.Resume(index)
			}
		}
	})
}
