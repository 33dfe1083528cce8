//go:build linux

package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/server"
	"github.com/qi-realtime/ws/bench/workload"
)

// nodes are the processes of a cluster, and a load generator for each node.
type nodes struct {
	params
	version string // of the broker
	layout  *layout
	rooms   int
	seats   [][]int32       // the rooms of each node's members
	server  *server.Process // of the broker; nil without one
	procs   []*server.Process
	gens    []*load.Generator
	work    [][]*members // by node and loop
	members []int        // of each room
}

// minQueue is the library's default of messages queued for a client.
const minQueue = 256

// historySize is the number of messages that a room keeps: the most that the brokers keep unless they
// are told otherwise.
const historySize = 1000

// start starts a broker and nodes, connects the members, and waits until the broker has all
// subscriptions.
func (o *run) start(
	ctx context.Context, s *command.Session, p params, l *layout,
) (c *nodes, err error) {
	c = &nodes{params: p, layout: l, rooms: l.rooms(o)}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	n := o.nodes
	if c.broker == none {
		n = 1
	}
	c.seats = l.seats(o, n)
	c.members = make([]int, c.rooms)
	if err := c.startProcesses(ctx, s, l.most(o)); err != nil {
		return nil, err
	}
	if err := c.startGenerators(ctx, s, l.most(o)); err != nil {
		return nil, err
	}
	return c, c.join(ctx)
}

// startProcesses starts the server of the broker, and the nodes.
func (c *nodes) startProcesses(
	ctx context.Context, s *command.Session, outstanding int,
) error {
	var cfg control.Config
	if c.history {
		cfg.Mode, cfg.HistorySize = control.Numbered, historySize
	}
	if c.broker != none {
		cfg.Broker = c.broker
		options := server.Options{Program: []string{c.program, "broker"}, Verbose: s.Verbose}
		var err error
		if c.server, err = server.Start(ctx, &options, cfg); err != nil {
			return err
		}
		cfg.BrokerAddr, c.version = c.server.Native, c.server.Library
	}
	session := *s
	session.Program = []string{c.program, "serve"}
	if outstanding > minQueue/2 { // a member may have all of them queued
		session.Queue = cmp.Or(s.Queue, 2*outstanding)
	}
	for _, seats := range c.seats {
		p, err := session.Launch(ctx, len(seats)+1, cfg)
		if err != nil {
			return err
		}
		c.procs = append(c.procs, p)
	}
	if c.server == nil {
		return nil
	}
	return c.await(ctx, func(reports []*control.Report) bool {
		return !slices.ContainsFunc(reports, func(r *control.Report) bool { return !r.LinkUp })
	})
}

// startGenerators connects the members and, as connection 0 of each node, one for acknowledgements.
func (c *nodes) startGenerators(ctx context.Context, s *command.Session, outstanding int) error {
	comp := workload.NewCompletions(c.rooms, outstanding, true)
	loops := max(1, s.ClientLoops/len(c.procs))
	for node, p := range c.procs {
		work := make([]*members, loops)
		g, err := load.NewGenerator(p.Addr(s.Path), loops, len(c.seats[node])+1, false, func(i int) load.Traffic {
			work[i] = newMembers(comp)
			return work[i]
		})
		if err != nil {
			return err
		}
		g.Each(func(_ int, l *load.Loop) { l.Whole = c.history })
		c.gens, c.work = append(c.gens, g), append(c.work, work)
		comp.Control(g.Loops[0])
		for n, room := range c.seats[node] {
			work[(n+1)%loops].Add(room)
			c.members[room]++
		}
	}
	for node, g := range c.gens { // one after the other: they share the machine
		if err := g.Connect(ctx, len(c.seats[node])+1); err != nil {
			return err
		}
	}
	return nil
}

// join lets the members join their rooms, and waits until they have, and until the broker has the
// subscriptions of each node.
func (c *nodes) join(ctx context.Context) error {
	for node, g := range c.gens {
		g.Each(func(_ int, l *load.Loop) {
			for index := range l.Conns {
				n := l.Number(index)
				if n == 0 {
					continue
				}
				conn := &l.Conns[index]
				conn.Room = c.seats[node][n-1]
				if c.layout.publisher(int(conn.Room), len(c.procs)) == node {
					conn.State = near
				}
				if c.history {
					l.Send(int32(index), joinFrame(conn.Room))
					continue
				}
				l.Send(int32(index), load.MaskedFrame(load.OpBinary,
					binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, uint32(conn.Room))))
			}
		})
	}
	return c.await(ctx, func(reports []*control.Report) bool {
		for node, r := range reports {
			rooms := slices.Clone(c.seats[node])
			slices.Sort(rooms)
			members := r.Members
			if c.history {
				members = c.joined(node)
			}
			if members != len(rooms) || (c.server != nil && r.Topics != len(slices.Compact(rooms))) {
				return false
			}
		}
		return true
	})
}

// joined returns the number of members of a node whose join was answered.
func (c *nodes) joined(node int) (sum int) {
	for _, n := range perLoop(c.gens[node], func(i int) int { return c.work[node][i].joined }) {
		sum += n
	}
	return sum
}

// perLoop returns the value of each loop, which the function reads on it.
func perLoop[T any](g *load.Generator, value func(i int) T) []T {
	values := make([]T, len(g.Loops))
	g.Each(func(i int, _ *load.Loop) { values[i] = value(i) })
	return values
}

// await waits until the reports of the nodes are as they should be.
func (c *nodes) await(ctx context.Context, ready func([]*control.Report) bool) error {
	var failed error
	condition := func() bool {
		reports, err := c.call(control.Command{Name: "report"})
		failed = err
		return err != nil || ready(reports)
	}
	if len(c.gens) > 0 {
		if err := c.gens[0].Await(ctx, condition); err != nil {
			return err
		}
		return failed
	}
	if err := new(load.Generator).Await(ctx, condition); err != nil {
		return fmt.Errorf("the nodes do not reach the broker: %w", err)
	}
	return failed
}

// call sends one command to all nodes, and returns their answers.
func (c *nodes) call(cmd control.Command) (reports []*control.Report, err error) {
	for _, p := range c.procs {
		r, err := p.Call(cmd)
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// stop ends all.
func (c *nodes) stop() {
	for _, g := range c.gens {
		g.Stop()
	}
	for _, p := range c.procs {
		p.Stop()
	}
	if c.server != nil {
		c.server.Stop()
	}
}
