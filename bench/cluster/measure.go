//go:build linux

package cluster

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
)

// figures are the results of one load.
type figures struct {
	command control.Command

	// Of the measured time.
	elapsed               time.Duration
	published, deliveries uint64
	nodesCPU, brokerCPU   time.Duration
	bytesOut              uint64 // of the broker
	near, far             result.Histogram

	whole wholeLoad
}

// wholeLoad holds the counts of a load that began before the measured time, and ended when all was
// delivered.
type wholeLoad struct {
	published, deliveries, in, out             uint64
	missing, disordered, dropped, gaps, errors uint64
	repairs                                    uint64
	broken                                     string // see members; "" for none
}

// snapshot holds the counters of all processes.
type snapshot struct {
	nodes  []*control.Report
	broker control.Report // zero without a broker
	load.Tally
	gaps uint64
	at   int64
}

func (c *nodes) snapshot() (s snapshot, err error) {
	if s.nodes, err = c.call(control.Command{Name: "report"}); err != nil {
		return s, err
	}
	if c.server != nil {
		r, err := c.server.Call(control.Command{Name: "report"})
		if err != nil {
			return s, err
		}
		s.broker = *r
	}
	s.at, s.Tally = control.Now(), c.sum()
	for node, g := range c.gens {
		for _, n := range perLoop(g, func(i int) uint64 { return c.work[node][i].gaps }) {
			s.gaps += n
		}
	}
	return s, nil
}

// sum adds the counters of all load generators.
func (c *nodes) sum() (sum load.Tally) {
	for _, g := range c.gens {
		t := g.Sum()
		sum.Messages += t.Messages
		sum.Lost += t.Lost
		sum.Disordered += t.Disordered
	}
	return sum
}

// run runs one load, measures it, and waits until all that was published is delivered.
func (c *nodes) run(ctx context.Context, o *load.Timing, cmd control.Command) (*figures, error) {
	began, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	if err := c.publish(cmd); err != nil {
		return nil, err
	}
	if err := load.Wait(ctx, o.Warmup); err != nil {
		return nil, err
	}
	c.begin()
	before, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	if err := load.Wait(ctx, o.Duration); err != nil {
		return nil, err
	}
	after, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	for _, g := range c.gens {
		g.End()
	}
	if _, err := c.call(control.Command{Name: "stop"}); err != nil {
		return nil, err
	}
	f := c.difference(&before, &after)
	f.command = cmd
	return f, c.finish(ctx, f, &began)
}

// publish starts the publishers. They share the rate or the outstanding messages.
func (c *nodes) publish(cmd control.Command) error {
	cmd.Rooms = c.rooms
	publishers := c.publishers()
	if c.layout.apart {
		cmd.Step = publishers
		cmd.Rate /= float64(publishers)
		cmd.Outstanding = (cmd.Outstanding + publishers - 1) / publishers
	}
	if c.history { // a publisher waits for the store
		if cmd.Publishers = cmd.Outstanding; cmd.Rate > 0 {
			cmd.Publishers = waiting
		}
	}
	for cmd.First = range publishers {
		if _, err := c.procs[cmd.First].Call(cmd); err != nil {
			return err
		}
	}
	return nil
}

// waiting is the number of publishers on a node that wait for the store, at a fixed rate.
const waiting = 64

// publishers returns the number of nodes that publish.
func (c *nodes) publishers() int {
	if c.layout.apart {
		return len(c.procs)
	}
	return 1
}

// begin starts the time whose messages are recorded.
func (c *nodes) begin() {
	for node, g := range c.gens {
		g.Begin()
		g.Each(func(i int, _ *load.Loop) {
			m := c.work[node][i]
			m.near, m.far = result.NewHistogram(), result.NewHistogram()
		})
	}
}

// difference returns the figures between two snapshots.
func (c *nodes) difference(before, after *snapshot) *figures {
	f := &figures{
		elapsed: time.Duration(after.at - before.at), deliveries: after.Messages - before.Messages,
		brokerCPU: after.broker.CPU - before.broker.CPU,
		bytesOut:  after.broker.BrokerBytesOut - before.broker.BrokerBytesOut,
	}
	for i, r := range after.nodes {
		f.published += r.Published - before.nodes[i].Published
		f.nodesCPU += r.CPU - before.nodes[i].CPU
	}
	return f
}

// finish waits until all that was published is delivered, or until no more comes, and adds the
// figures of the whole load.
func (c *nodes) finish(ctx context.Context, f *figures, began *snapshot) error {
	reports, err := c.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	want := uint64(0)
	for node := range c.publishers() {
		want += c.wanted(node, reports[node].Published-began.nodes[node].Published)
	}
	w := &f.whole
	w.missing, err = c.gens[0].Missing(ctx, func(load.Tally) (uint64, uint64) {
		sum := c.sum()
		w.disordered = sum.Disordered - began.Disordered
		return want, sum.Messages - began.Messages - w.disordered
	})
	if err != nil {
		return err
	}
	ended, err := c.settled(ctx)
	if err != nil {
		return err
	}
	w.add(began, &ended)
	w.broken = c.takeBroken()
	f.near, f.far = c.latencies()
	return nil
}

// takeBroken returns the first message that did not follow, of one loop with such a message, and
// forgets those of all loops. It returns "" if there was none.
func (c *nodes) takeBroken() (broken string) {
	for node, g := range c.gens {
		broken = cmp.Or(append([]string{broken}, perLoop(g, func(i int) (first string) {
			m := c.work[node][i]
			first, m.broken = m.broken, ""
			return first
		})...)...)
	}
	return broken
}

// settled returns a snapshot in which the counts of the broker do not grow any more: they lag.
func (c *nodes) settled(ctx context.Context) (last snapshot, err error) {
	for {
		s, err := c.snapshot()
		if err != nil || (s.broker.BrokerIn == last.broker.BrokerIn && s.broker.BrokerOut == last.broker.BrokerOut) {
			return s, err
		}
		last = s
		if err := load.Wait(ctx, 50*time.Millisecond); err != nil {
			return s, err
		}
	}
}

// add adds the counts between two snapshots.
func (w *wholeLoad) add(began, ended *snapshot) {
	w.gaps = ended.gaps - began.gaps
	w.deliveries = ended.Messages - began.Messages
	w.in = ended.broker.BrokerIn - began.broker.BrokerIn
	w.out = ended.broker.BrokerOut - began.broker.BrokerOut
	handed := uint64(0)
	for i, r := range ended.nodes {
		before := began.nodes[i]
		w.published += r.Published - before.Published
		w.dropped += r.Dropped - before.Dropped + r.LinkLost - before.LinkLost
		w.errors += r.PublishErrors - before.PublishErrors
		w.repairs += r.Repairs - before.Repairs
		handed += r.FromLink - before.FromLink
	}
	if ended.broker.BrokerOut == 0 { // Redis does not count them
		w.out = handed
	}
}

// latencies returns those of all loops, within a node and across nodes.
func (c *nodes) latencies() (near, far result.Histogram) {
	near, far = result.NewHistogram(), result.NewHistogram()
	var mu sync.Mutex
	for node, g := range c.gens {
		g.Each(func(i int, _ *load.Loop) {
			mu.Lock()
			defer mu.Unlock()
			near.Add(c.work[node][i].near)
			far.Add(c.work[node][i].far)
		})
	}
	return near, far
}

// wanted returns the deliveries of n messages that a node has published to its rooms in turn.
func (c *nodes) wanted(node int, n uint64) (sum uint64) {
	var rooms []int
	for room := node; room < c.rooms; room += c.publishers() {
		rooms = append(rooms, room)
	}
	for turn, room := range rooms {
		of := n / uint64(len(rooms))
		if uint64(turn) < n%uint64(len(rooms)) {
			of++
		}
		sum += of * uint64(c.members[room])
	}
	return sum
}
