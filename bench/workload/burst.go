//go:build linux

package workload

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/contenders"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// BurstCommand is the command burst.
var BurstCommand = command.Command{
	Name:  "burst",
	About: "time until a client that sends all at once is answered, against gws",
	Help: `One client sends requests or an upload without waiting for answers, faster than the
pooled handlers work: the server pauses its connection, and the client waits. It
measures the time until all is answered, in order, the server's CPU time and memory,
and the number of pauses. In turns, gws receives the requests to a handler that does
nothing, too: its read loop handles them one by one.`,
	Example:  "bench burst -rounds 5 -path http",
	NotInAll: true,
	New:      func() command.Runner { return newBurstRun() },
}

// burstLimit is the time that one burst may take.
const burstLimit = 2 * time.Minute

// burstRun is a run of burst.
type burstRun struct {
	rounds         int
	requests, slow int
	handlerTime    time.Duration
	upload, chunk  int
	cpuprofile     string // file
	contenders.Options
}

func newBurstRun() *burstRun {
	return &burstRun{
		rounds: 1, requests: 100_000, slow: 5000, handlerTime: time.Millisecond, upload: 100, chunk: 16 << 10,
		Options: contenders.DefaultPeers(),
	}
}

func (b *burstRun) Flags(fs *flag.FlagSet) {
	command.RoundsFlag(fs, &b.rounds)
	load.CPUProfileFlag(fs, &b.cpuprofile)
	b.Options.Flags(fs)
	fs.IntVar(&b.requests, "requests", b.requests, "burst: requests to a handler that does nothing")
	fs.IntVar(&b.slow, "slow-requests", b.slow, "burst: requests to a handler that takes -handler-time")
	fs.DurationVar(&b.handlerTime, "handler-time", b.handlerTime, "burst: time that the slow handler takes")
	fs.IntVar(&b.upload, "upload", b.upload, "burst: `MiB` to upload")
	fs.IntVar(&b.chunk, "chunk", b.chunk, "burst: bytes of a message of the upload, at least 16")
}

func (b *burstRun) Validate(*command.Session) error {
	if min(b.requests, b.slow, b.upload) < 1 || b.handlerTime <= 0 || b.chunk < control.StampBytes || b.chunk > 1<<20 {
		return errors.New("bench: -requests, -slow-requests, -handler-time, -upload or -chunk is out of range")
	}
	return command.AtLeast("-rounds", b.rounds, 1)
}

// burstRequest is the length of a request of burst.
const burstRequest = 100

// burstLoad is a load that one client sends without waiting for answers.
type burstLoad struct {
	name     string
	messages int
	payload  burstPayload
	config   control.Config
	compared bool // also against the peers that have its mode
}

func (b *burstRun) loads() []burstLoad {
	requests := newNoopPayload(burstRequest)
	return []burstLoad{
		{"requests", b.requests, requests, control.Config{Mode: control.Noop, Pooled: true}, true},
		{
			"slow requests", b.slow, requests,
			control.Config{Mode: control.Noop, Pooled: true, HandlerTime: b.handlerTime},
			false,
		},
		{
			"upload", max(1, b.upload<<20/b.chunk), newUploadPayload(b.chunk),
			control.Config{Mode: control.Head, Pooled: true},
			false,
		},
	}
}

// burstPeers are the libraries whose servers have the mode control.Noop.
var burstPeers = []string{"gws"}

// Run measures clients that send faster than their handlers work.
func (b *burstRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.Path = cmp.Or(s.Path, "native")
	libraries, remove, err := b.libraries(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	t := &result.Table{
		Command: "burst", Title: "One client sends all at once and reads the answers",
		Columns: []result.Column{
			{"load", "load", "%s"},
			{"library", "library", "%s"},
			{"path", "path", "%s"},
			{"messages", "messages", "%d"},
			{"size", "bytes", "%d"},
			{"all_ms", "all answered, ms", "%.1f"},
			{"per_second", "messages/s", "%.0f"},
			{"server_us", "server µs/msg", "%.2f"},
			{"growth_mib", "peak RSS growth MiB", "%.1f"},
			{"pauses", "pauses", "%v"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, X: []string{"load", "library", "path"},
			Y: []string{"all_ms", "server_us", "growth_mib"},
		}},
	}
	loads := b.loads()
	s.Progress.Expect(b.rounds*(len(loads)+len(libraries)-1), 5*time.Second)
	for round := range b.rounds {
		for i := range loads {
			if err := b.round(ctx, s, &loads[i], libraries, round, t); err != nil {
				return nil, err
			}
		}
	}
	return []*result.Table{t}, nil
}

// libraries returns this library and those to compare it with.
func (b *burstRun) libraries(ctx context.Context) (libraries []contenders.Contender, remove func(), err error) {
	if b.Peers == "none" {
		return []contenders.Contender{{Name: contenders.Ours}}, func() {}, nil
	}
	binary, remove, err := b.Program(ctx)
	if err != nil {
		return nil, nil, err
	}
	libraries, err = b.Contenders(ctx, binary)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return slices.DeleteFunc(libraries, func(c contenders.Contender) bool {
		return c.Name != contenders.Ours && !slices.Contains(burstPeers, c.Name)
	}), remove, nil
}

// round runs one load once, with each library in turn if it is compared.
// Another library begins in each round.
func (b *burstRun) round(ctx context.Context, s *command.Session, load *burstLoad,
	libraries []contenders.Contender, round int, t *result.Table,
) error {
	if !load.compared {
		libraries = libraries[:1]
	}
	for i := range libraries {
		lib := libraries[(round+i)%len(libraries)]
		s.Progress.Step("burst, round %d of %d: %s, %s", round+1, b.rounds, load.name, lib.Name)
		if err := b.once(ctx, s, load, lib, t); err != nil {
			return fmt.Errorf("%s, %s: %w", load.name, lib.Name, err)
		}
	}
	return nil
}

// once runs one load on a fresh server, and adds its row.
func (b *burstRun) once(ctx context.Context, s *command.Session, load *burstLoad,
	lib contenders.Contender, t *result.Table,
) error {
	ctx, cancel := context.WithTimeout(ctx, burstLimit)
	defer cancel()
	with := *s
	with.Program = lib.Serve
	srv, err := with.Launch(ctx, 1, load.config)
	if err != nil {
		return err
	}
	defer srv.Stop()
	c, err := dialBurst(ctx, srv.Addr(s.Path), load)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	before, err := srv.Call(control.Command{Name: "mark"})
	if err != nil {
		return err
	}
	if err := srv.Profile(b.cpuprofile); err != nil {
		return err
	}
	took, failed := c.run(ctx)
	if err := cmp.Or(failed, srv.EndProfile(b.cpuprofile)); err != nil {
		return err
	}
	after, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	n := load.messages
	var pauses any
	if lib.Serve == nil {
		pauses = after.Pauses
	}
	grown := max(0, int64(after.PeakRSS)-int64(before.RSS))
	t.Add(load.name, lib.Name, s.Path, n, load.payload.size(), result.Millis(took), float64(n)/took.Seconds(),
		result.Micros(after.CPU-before.CPU)/float64(n), float64(grown)/(1<<20), pauses, n-c.answered, c.disordered)
	return nil
}
