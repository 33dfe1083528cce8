//go:build linux

package workload

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

const (
	// requestEvery is the time between two requests of a client.
	requestEvery = 5 * time.Second
	// paceBins is the number of equal parts of the window in which the slots are
	// counted.
	paceBins = 20
)

// paced measures a drain at a pace, whose clients move to another server.
func (o *drainRun) paced(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	t := newPacedTable()
	for range o.rounds {
		if err := o.pacedRound(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return []*result.Table{t}, nil
}

func newPacedTable() *result.Table {
	return &result.Table{
		Command: "drain-paced", Title: "A drain at a pace: the clients move to another server",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "clients", "%d"},
			{"aware", "read the notice", "%d"},
			{"window_s", "window s", "%.1f"},
			{"slots_s", "first to last slot s", "%.2f"},
			{"pace", "slots/s", "%.1f"},
			{"deviation", "most in a 20th off by %", "%.2f"},
			{"moved", "moved", "%d"},
			{"closed", "closed", "%d"},
			{"forced", "forced", "%d"},
			{"aware_gap_ms", "longest without a connection, with notice, ms", "%.1f"},
			{"gap_p50_ms", "without a notice p50 ms", "%.0f"},
			{"gap_ms", "longest", "%.0f"},
			{"peak", "most reconnects in 1 s", "%d"},
			{"messages", "deliveries", "%d"},
			{"slowest_ms", "slowest ms", "%.0f"},
			{"missing", "missing between others", "%d"},
			{"missing_end", "missing at the end", "%d"},
			{"disordered", "disordered", "%d"},
			{"requests", "requests", "%d"},
			{"unhandled", "unhandled", "%d"},
			{"unanswered", "unanswered", "%d"},
			{"server_us", "server µs/client", "%.1f"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, X: []string{"path", "conns", "window_s"}, Y: []string{"deviation", "aware_gap_ms", "gap_ms"},
		}},
	}
}

// migration is a server that drains, the one that its clients move to, and the
// clients.
type migration struct {
	*drainRun
	srv       *server.Process
	old, next *load.Generator
	work      []*moving
}

func (o *drainRun) pacedRound(ctx context.Context, s *command.Session, t *result.Table) error {
	m := &migration{drainRun: o}
	for range s.ClientLoops {
		m.work = append(m.work, new(moving))
	}
	cfg := control.Config{Notices: true, MaxConnections: o.conns + 16}
	srv, old, stop, err := s.Start(ctx, s.Path, o.conns, cfg, func(i int) load.Traffic { return m.work[i] })
	if err != nil {
		return err
	}
	defer stop()
	_, next, stopNext, err := s.Start(ctx, s.Path, o.conns, cfg, func(int) load.Traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stopNext()
	m.srv, m.old, m.next = srv, old, next
	if err := m.enter(ctx); err != nil {
		return err
	}
	before, err := m.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	if _, err := m.srv.Call(control.Command{Name: "publish", Size: o.size, Rate: o.rate}); err != nil {
		return err
	}
	began := control.Now()
	if _, err := m.srv.Call(control.Command{Name: "drain", Window: o.window, Settle: o.settle}); err != nil {
		return err
	}
	after, err := m.srv.Call(control.Command{Name: "stop"})
	if err != nil {
		return err
	}
	if err := m.next.Await(ctx, func() bool {
		return m.next.Count(func(c *load.Conn) bool { return c.Phase == load.PhaseOpen }) == o.conns
	}); err != nil {
		return fmt.Errorf("clients move: %w", err)
	}
	if err := m.old.Await(ctx, func() bool {
		return m.old.Count(func(c *load.Conn) bool { return c.Phase != load.PhaseClosed }) == 0
	}); err != nil {
		return fmt.Errorf("clients leave: %w", err)
	}
	m.add(t, s.Path, began, before, after)
	return nil
}

// enter connects the clients and lets all join the room.
func (m *migration) enter(ctx context.Context) error {
	aware := evenly(m.conns, m.aware)
	m.old.Query(func(n int) string {
		if aware[n] {
			return control.NoticeQuery
		}
		return ""
	})
	m.next.Query(func(int) string { return control.NoticeQuery })
	if err := m.old.Connect(ctx, m.conns); err != nil {
		return err
	}
	m.next.Reserve(m.conns)
	for i, old := range m.old.Loops {
		w := m.work[i]
		w.to = m.next.Loops[i]
		w.moves = make([]move, m.old.Share(i, m.conns))
		for index := range w.moves {
			w.moves[index].aware = aware[old.Number(index)]
		}
		w.to.OnOpen = func(index int32) {
			w.moves[index].opened = control.Now()
			old.Do(func() {
				old.Conns[index].State = movingOpened
				w.leave(old, index)
			})
		}
	}
	m.old.Each(func(i int, l *load.Loop) {
		l.Whole, l.MayEnd = true, true
		l.OnClose = func(index int32, _ uint16, body []byte) { m.work[i].closed(index, body) }
		m.work[i].begin(l, requestEvery)
	})
	return m.old.Await(ctx, func() bool {
		return m.count(func(v *move) bool { return v.heard == 0 }) == 0
	})
}

// count counts the moves for which is returns true.
func (m *migration) count(is func(v *move) bool) (sum int) {
	counts := make([]int, len(m.work))
	m.old.Each(func(i int, _ *load.Loop) {
		for index := range m.work[i].moves {
			if is(&m.work[i].moves[index]) {
				counts[i]++
			}
		}
	})
	for _, n := range counts {
		sum += n
	}
	return sum
}

// add adds the row of a drain that began at a time.
func (m *migration) add(t *result.Table, path string, began int64, before, after *control.Report) {
	var slots, opens []int64
	gaps, awareGap := result.NewHistogram(), int64(0)
	var asked, heard, missing uint64
	aware := 0
	m.old.Each(func(int, *load.Loop) {}) // the loops have done all
	m.next.Each(func(int, *load.Loop) {})
	// A message may have been published as late as the slowest one came, and a close frame
	// may have been as long on its way.
	var slowest int64
	for _, w := range m.work {
		slowest = max(slowest, w.slowest)
	}
	for i, w := range m.work {
		missing += w.missing(m.old.Loops[i], 2*slowest)
		for index := range w.moves {
			v := &w.moves[index]
			slots, opens = append(slots, v.slot), append(opens, v.opened)
			asked, heard = asked+uint64(v.asked), heard+uint64(v.heard)
			if gap := max(0, v.opened-v.ended); v.aware {
				aware++
				awareGap = max(awareGap, gap)
			} else {
				gaps.Record(gap)
			}
		}
	}
	slices.Sort(slots)
	slices.Sort(opens)
	sum := m.old.Sum()
	took := time.Duration(slots[len(slots)-1] - slots[0])
	t.Add(path, m.conns, aware, m.window.Seconds(), took.Seconds(), float64(len(slots)-1)/took.Seconds(),
		100*deviation(slots, began, m.window), after.Moved, after.Closed, after.Forced,
		result.Millis(time.Duration(awareGap)), result.Millis(gaps.Quantile(0.5)), result.Millis(gaps.Max()),
		most(opens, time.Second), sum.Messages, result.Millis(time.Duration(slowest)), sum.Lost, missing, sum.Disordered,
		asked, asked-min(asked, after.Handled), asked-heard, result.Micros(after.CPU-before.CPU)/float64(m.conns))
}

// deviation is the largest deviation from an even pace among the parts of the window, as a
// share. times are in order.
func deviation(times []int64, began int64, window time.Duration) (largest float64) {
	expected := float64(len(times)) / paceBins
	done := 0
	for bin := 1; bin <= paceBins; bin++ {
		end := began + int64(window)*int64(bin)/paceBins
		until, _ := slices.BinarySearch(times, end)
		largest = max(largest, math.Abs(float64(until-done)/expected-1))
		done = until
	}
	return largest
}

// most is the highest number of times within a duration. times are in order.
func most(times []int64, within time.Duration) (highest int) {
	first := 0
	for i, at := range times {
		for times[first] <= at-int64(within) {
			first++
		}
		highest = max(highest, i-first+1)
	}
	return highest
}
