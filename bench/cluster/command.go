//go:build linux

package cluster

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/contenders"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
)

// Command is the command cluster.
var Command = command.Command{
	Name:  "cluster",
	About: "three nodes on NATS or Redis: messages a second, latency across nodes, work of the broker",
	Help: `Nodes in processes of their own share a broker, whose server is a process, too. One
room has members on all nodes; or many rooms have all of their members on one node each,
so that a node gets a third of the messages; or one room has one member on each node. Each
load runs at full speed or at a fixed rate. It counts deliveries and messages a second, CPU
time of the nodes and of the broker, messages in and out of the broker by its own count, and the
time to members on the publisher's node and on the others. The broker none is one node with
all members. The program bench/nodes is built for it; Redis needs the program redis-server.`,
	Example:  "bench cluster -brokers none,nats -conns 9000 -rooms 1000",
	NotInAll: true,
	New:      func() command.Runner { return newRun() },
}

// none is the broker of one node alone.
const none = "none"

// allBrokers are the brokers that -brokers knows.
var allBrokers = []string{none, control.NATS, control.Redis, control.Sharded, control.NATSFiles}

// run is a run of cluster.
type run struct {
	conns, rooms, size, nodes int
	brokers, loads            string
	outstanding               int
	roomRate, roomsRate       float64
	linkRate                  float64
	history, all              bool
	binary                    string
	load.Timing
}

func newRun() *run {
	return &run{
		rooms: 1000, size: 512, nodes: 3, outstanding: 64, roomRate: 10, roomsRate: 3000, linkRate: 1000,
		brokers: strings.Join(allBrokers[:3], ","), loads: strings.Join(loadNames(), ","), Timing: load.DefaultTiming(),
	}
}

func (o *run) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.RoomsFlag(fs, &o.rooms)
	command.SizeFlag(fs, &o.size)
	command.OutstandingFlag(fs, &o.outstanding)
	fs.StringVar(&o.brokers, "brokers", o.brokers, "cluster: some of "+strings.Join(allBrokers, ","))
	fs.StringVar(&o.loads, "loads", o.loads, "cluster: some of "+strings.Join(loadNames(), ","))
	fs.IntVar(&o.nodes, "nodes", o.nodes, "cluster: processes that share a broker")
	fs.Float64Var(&o.roomRate, "room-rate", o.roomRate, "cluster: publishes a second to the one room")
	fs.Float64Var(&o.roomsRate, "rooms-rate", o.roomsRate, "cluster: publishes a second to many rooms")
	fs.Float64Var(&o.linkRate, "link-rate", o.linkRate, "cluster: publishes a second to one member on each node")
	fs.BoolVar(&o.history, "history", o.history, "cluster: the rooms have a history, which the broker stores")
	fs.BoolVar(&o.all, "all", o.all, "cluster: all brokers and loads, without and with a history, in less than 8 minutes")
	fs.StringVar(&o.binary, "nodes-binary", o.binary, "cluster: the `program` built from bench/nodes; else it is built")
	load.DurationFlag(fs, &o.Duration)
	load.WarmupFlag(fs, &o.Warmup)
}

func (o *run) Validate(*command.Session) error {
	for _, list := range []struct {
		flag, value string
		known       []string
	}{{"-brokers", o.brokers, allBrokers}, {"-loads", o.loads, loadNames()}} {
		for name := range strings.SplitSeq(list.value, ",") {
			if !slices.Contains(list.known, name) {
				return fmt.Errorf("bench: %s: no %q; there are %s", list.flag, name, strings.Join(list.known, ","))
			}
		}
	}
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rooms", o.rooms, 1),
		command.AtLeast("-nodes", o.nodes, 2), command.AtLeast("-outstanding", o.outstanding, 1),
		command.AtLeast("-room-rate", o.roomRate, 0.1),
		command.AtLeast("-rooms-rate", o.roomsRate, 0.1), command.AtLeast("-link-rate", o.linkRate, 0.1))
}

// Run measures each load with each broker.
func (o *run) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 9000)
	if o.all {
		o.brokers, o.loads = strings.Join(allBrokers, ","), strings.Join(loadNames(), ",")
	}
	if least := max(o.nodes, o.rooms); o.conns < least {
		return nil, fmt.Errorf("bench: cluster needs %d connections at least", least)
	}
	program, remove, err := contenders.Build(ctx, "nodes", o.binary)
	if err != nil {
		return nil, err
	}
	defer remove()
	t := newTables(strings.Split(o.loads, ","))
	cases := o.cases()
	s.Progress.Expect(len(cases)*len(layouts), 2*(o.Warmup+o.Duration)+4*time.Second)
	for _, p := range cases {
		p.program = program
		for _, l := range layouts {
			s.Progress.Step("%s, history %v, %s", p.broker, p.history, l.name)
			if err := o.measure(ctx, s, p, l, t); err != nil {
				return nil, fmt.Errorf("broker %s, load %s: %w", p.broker, l.name, err)
			}
		}
	}
	return t.all(), nil
}

// params are the parameters of nodes.
type params struct {
	program, broker string
	history         bool
}

// cases are those that the flags ask for.
func (o *run) cases() (cases []params) {
	for _, history := range []bool{false, true} {
		if !o.all && history != o.history {
			continue
		}
		for broker := range strings.SplitSeq(o.brokers, ",") {
			if o.all && !history && broker == control.NATSFiles {
				continue // as nats
			}
			cases = append(cases, params{broker: broker, history: history})
		}
	}
	return cases
}

// measure runs the loads of a layout that are wanted, on nodes of their own.
func (o *run) measure(
	ctx context.Context, s *command.Session, p params, l *layout, t *tables,
) error {
	wanted := slices.DeleteFunc([]kind{{l, false}, {l, true}}, func(k kind) bool { return !t.has(k) })
	if len(wanted) == 0 {
		return nil
	}
	c, err := o.start(ctx, s, p, l)
	if err != nil {
		return err
	}
	defer c.stop()
	for _, k := range wanted {
		f, err := c.run(ctx, &o.Timing, k.command(o, c.history))
		if err != nil {
			return err
		}
		t.add(k, c, f)
	}
	return nil
}
