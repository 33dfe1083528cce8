//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var burstCommand = command{
	name:  "burst",
	about: "time until a client that sends all at once is answered, against gws",
	help: `One client sends requests or an upload without waiting for answers, faster than the
pooled handlers work: the server pauses its connection, and the client waits. It
says when all was answered, in order, what that took of the server's CPU time and
memory, and how often it paused. Requests to a handler that does nothing are also
sent to gws, in turns, whose read loop handles them one by one.`,
	example:  "bench burst -rounds 5 -path http",
	notInAll: true,
	new:      func() runner { return newBurstRun() },
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
	peerOptions
}

func newBurstRun() *burstRun {
	return &burstRun{
		rounds: 1, requests: 100_000, slow: 5000, handlerTime: time.Millisecond, upload: 100, chunk: 16 << 10,
		peerOptions: defaultPeers(),
	}
}

func (b *burstRun) flags(fs *flag.FlagSet) {
	roundsFlag(fs, &b.rounds)
	cpuprofileFlag(fs, &b.cpuprofile)
	b.peerOptions.flags(fs)
	fs.IntVar(&b.requests, "requests", b.requests, "burst: requests to a handler that does nothing")
	fs.IntVar(&b.slow, "slow-requests", b.slow, "burst: requests to a handler that takes -handler-time")
	fs.DurationVar(&b.handlerTime, "handler-time", b.handlerTime, "burst: time that the slow handler takes")
	fs.IntVar(&b.upload, "upload", b.upload, "burst: `MiB` to upload")
	fs.IntVar(&b.chunk, "chunk", b.chunk, "burst: bytes of a message of the upload, at least 16")
}

func (b *burstRun) validate(*session) error {
	if min(b.requests, b.slow, b.upload) < 1 || b.handlerTime <= 0 || b.chunk < control.StampBytes || b.chunk > 1<<20 {
		return errors.New("bench: -requests, -slow-requests, -handler-time, -upload or -chunk is out of range")
	}
	return atLeast("-rounds", b.rounds, 1)
}

// burstRequest is the length of a request of burst.
const burstRequest = 100

// burstLoad is what one client sends without waiting for answers.
type burstLoad struct {
	name     string
	messages int
	form     burstForm
	config   control.Config
	compared bool // also against the peers that have its mode
}

func (b *burstRun) loads() []burstLoad {
	requests := newNoopForm(burstRequest)
	return []burstLoad{
		{"requests", b.requests, requests, control.Config{Mode: control.Noop, Pooled: true}, true},
		{"slow requests", b.slow, requests, control.Config{Mode: control.Noop, Pooled: true, HandlerTime: b.handlerTime}, false},
		{"upload", max(1, b.upload<<20/b.chunk), newUploadForm(b.chunk), control.Config{Mode: control.Head, Pooled: true}, false},
	}
}

// burstPeers are the libraries whose servers have the mode control.Noop.
var burstPeers = []string{"gws"}

// run measures clients that send faster than their handlers work.
func (b *burstRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.path = cmp.Or(s.path, "native")
	libraries, remove, err := b.libraries(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	t := &table{command: "burst", title: "One client sends all at once and reads the answers", columns: []column{
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
	}, charts: []chart{{Kind: report.Bars, X: []string{"load", "library", "path"}, Y: []string{"all_ms", "server_us", "growth_mib"}}}}
	loads := b.loads()
	s.progress.expect(b.rounds*(len(loads)+len(libraries)-1), 5*time.Second)
	for round := range b.rounds {
		for i := range loads {
			if err := b.round(ctx, s, &loads[i], libraries, round, t); err != nil {
				return nil, err
			}
		}
	}
	return []*table{t}, nil
}

// libraries returns this library and those to compare it with.
func (b *burstRun) libraries(ctx context.Context) (libraries []contender, remove func(), err error) {
	if b.peers == "none" {
		return []contender{{name: ourName}}, func() {}, nil
	}
	binary, remove, err := b.peersProgram(ctx)
	if err != nil {
		return nil, nil, err
	}
	libraries, err = b.contenders(ctx, binary)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return slices.DeleteFunc(libraries, func(c contender) bool {
		return c.name != ourName && !slices.Contains(burstPeers, c.name)
	}), remove, nil
}

// round runs one load once, with each library in turn if it is compared.
// Another library begins in each round.
func (b *burstRun) round(ctx context.Context, s *session, load *burstLoad, libraries []contender, round int, t *table) error {
	if !load.compared {
		libraries = libraries[:1]
	}
	for i := range libraries {
		lib := libraries[(round+i)%len(libraries)]
		s.progress.step("burst, round %d of %d: %s, %s", round+1, b.rounds, load.name, lib.name)
		if err := b.once(ctx, s, load, lib, t); err != nil {
			return fmt.Errorf("%s, %s: %w", load.name, lib.name, err)
		}
	}
	return nil
}

// once runs one load on a fresh server, and adds its row.
func (b *burstRun) once(ctx context.Context, s *session, load *burstLoad, lib contender, t *table) error {
	ctx, cancel := context.WithTimeout(ctx, burstLimit)
	defer cancel()
	with := *s
	with.program = lib.serve
	srv, err := with.launch(ctx, 1, load.config)
	if err != nil {
		return err
	}
	defer srv.stop()
	c, err := dialBurst(ctx, srv.addr(s.path), load)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	before, err := srv.call(control.Command{Name: "mark"})
	if err != nil {
		return err
	}
	if err := srv.profile(b.cpuprofile); err != nil {
		return err
	}
	took, failed := c.run(ctx)
	if err := cmp.Or(failed, srv.endProfile(b.cpuprofile)); err != nil {
		return err
	}
	after, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	n := load.messages
	var pauses any
	if lib.serve == nil {
		pauses = after.Pauses
	}
	grown := max(0, int64(after.PeakRSS)-int64(before.RSS))
	t.add(load.name, lib.name, s.path, n, load.form.size(), millis(took), float64(n)/took.Seconds(),
		micros(after.CPU-before.CPU)/float64(n), float64(grown)/(1<<20), pauses, n-c.answered, c.disordered)
	return nil
}
