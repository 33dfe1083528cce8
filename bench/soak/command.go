//go:build linux

package soak

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/attack"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

// Command is the command soak.
var Command = command.Command{
	Name:  "soak",
	About: "hours of changing loads: does the server grow, and do healthy clients lose anything?",
	Help: `Runs one server process for long. Each cycle has a steady time, churn, members that
stall and come back, a storm of reconnects, an attack and, in the second half of the
run, a drain that ends the manager, which another follows in the same process. Healthy
clients check meanwhile that they get every message once and in order; so do clients of
package client in a room with a history, over all drains. At the end of each cycle only
they are left: goroutines, descriptors, heap and RSS are compared then.
The exit status is 1 if something grew or was lost.`,
	Example:  "bench soak -d 30m -html soak.html",
	NotInAll: true,
	New:      func() command.Runner { return newRunner() },
}

const (
	// maxConns bounds the connections, so that client and server processes stay below
	// common limits of descriptors, also while a storm overlaps with the connections
	// before it.
	maxConns = 8000
	// leastCycles is how many cycles each half of a run has at least, so that its first
	// third can be compared with its last, behind one cycle to warm up.
	leastCycles = 4
	// defaultAttacks are the attacks that need no settings of their own.
	defaultAttacks = "rooms,slowhead,oversized,garbage,pings,notreading,fragments,hangup,closers,resets," +
		"violator,duplicates"
)

// runner is a run of soak. Not safe for concurrent use.
type runner struct {
	duration, cycle, sample time.Duration
	conns, healthy, rooms   int
	readers                 int
	size                    int
	rate, share             float64
	attacks, leak           string
	memprofile              string // file
}

func newRunner() *runner {
	return &runner{
		duration: 30 * time.Minute, cycle: 20 * time.Second, sample: 2 * time.Second,
		healthy: 200, readers: 20, rooms: 50, size: 256, rate: 100, share: 0.1, attacks: defaultAttacks,
	}
}

func (o *runner) Flags(fs *flag.FlagSet) {
	fs.DurationVar(&o.duration, "d", o.duration, "soak: how long it runs")
	fs.DurationVar(&o.cycle, "cycle", o.cycle, "soak: time of a cycle, without the wait for its end")
	fs.DurationVar(&o.sample, "sample", o.sample, "soak: time between looks at the server")
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	fs.IntVar(&o.healthy, "healthy", o.healthy, "soak: chatting `clients` that check all that they get")
	fs.IntVar(&o.readers, "readers", o.readers,
		"soak: `clients` of package client in a room with a history, which check all that they get")
	fs.IntVar(&o.rooms, "chat-rooms", o.rooms, "soak: `rooms` of all clients")
	fs.Float64Var(&o.rate, "chat-rate", o.rate, "soak: `messages` a second of the healthy clients")
	fs.StringVar(&o.attacks, "attacks", o.attacks, "soak: `names` of attacks, one for each cycle in turn")
	fs.Float64Var(&o.share, "strength", o.share, "soak: `share` of the clients and rates of each attack")
	fs.StringVar(&o.leak, "leak", o.leak, "soak: a `resource` that the server loses with each connection, so that "+
		"the run must fail: "+strings.Join(control.Leaks, ", "))
	fs.StringVar(&o.memprofile, "memprofile", o.memprofile,
		"soak: write the server's heap after each 10th cycle to `file`.10, file.20 and so on")
}

func (o *runner) Validate(*command.Session) error {
	for name := range strings.SplitSeq(o.attacks, ",") {
		if !attack.Known(name) {
			return fmt.Errorf("bench: -attacks names %q, must be some of %s", name, strings.Join(attack.Names(), ","))
		}
	}
	switch {
	case o.conns < 0 || o.healthy < 2 || o.readers < 0 || o.conns+o.healthy+o.readers > maxConns:
		return fmt.Errorf("bench: -conns, -healthy and -readers must be at least 0, 2 and 0, and %d together at most",
			maxConns)
	case o.leak != "" && !slices.Contains(control.Leaks, o.leak):
		return fmt.Errorf("bench: -leak is %q, must be one of %s", o.leak, strings.Join(control.Leaks, ", "))
	case o.cycle < 500*time.Millisecond || o.duration < 2*leastCycles*o.cycle:
		return fmt.Errorf("bench: -d must be at least %d times -cycle, which is at least 500ms", 2*leastCycles)
	case !(o.rate > 0) || !(o.share > 0 && o.share <= 1):
		return errors.New("bench: -chat-rate or -strength is out of range")
	}
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-chat-rooms", o.rooms, 1),
		command.AtLeast("-sample", o.sample, 10*time.Millisecond))
}

// Run soaks a server. The error of a run whose verdict is bad comes with its tables.
func (o *runner) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	paths := []string{"native", "http"}
	if s.Path != "" {
		paths = []string{s.Path}
	}
	s.SetDefaults(&o.conns, 4000)
	r, err := newRun(ctx, o, s, paths)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	if err := r.all(ctx); err != nil {
		return nil, err
	}
	return r.report()
}
