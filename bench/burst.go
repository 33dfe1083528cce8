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

// burstLimit is the time that one burst may take.
const burstLimit = 2 * time.Minute

// burstOptions are the flags of burst.
type burstOptions struct {
	requests, slow int
	handlerTime    time.Duration
	upload, chunk  int
}

func defaultBurst() burstOptions {
	return burstOptions{requests: 100_000, slow: 5000, handlerTime: time.Millisecond, upload: 100, chunk: 16 << 10}
}

func (b *burstOptions) register(fs *flag.FlagSet) {
	fs.IntVar(&b.requests, "requests", b.requests, "burst: requests to a handler that does nothing")
	fs.IntVar(&b.slow, "slow-requests", b.slow, "burst: requests to a handler that takes -handler-time")
	fs.DurationVar(&b.handlerTime, "handler-time", b.handlerTime, "burst: time that the slow handler takes")
	fs.IntVar(&b.upload, "upload", b.upload, "burst: `MiB` to upload")
	fs.IntVar(&b.chunk, "chunk", b.chunk, "burst: bytes of a message of the upload, at least 16")
}

func (b *burstOptions) validate() error {
	if min(b.requests, b.slow, b.upload) < 1 || b.handlerTime <= 0 || b.chunk < control.StampBytes || b.chunk > 1<<20 {
		return errors.New("bench: -requests, -slow-requests, -handler-time, -upload or -chunk is out of range")
	}
	return nil
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

func (b *burstOptions) loads() []burstLoad {
	requests := newNoopForm(burstRequest)
	return []burstLoad{
		{"requests", b.requests, requests, control.Config{Mode: control.Noop, Pooled: true}, true},
		{"slow requests", b.slow, requests, control.Config{Mode: control.Noop, Pooled: true, HandlerTime: b.handlerTime}, false},
		{"upload", max(1, b.upload<<20/b.chunk), newUploadForm(b.chunk), control.Config{Mode: control.Head, Pooled: true}, false},
	}
}

// burstPeers are the libraries whose servers have the mode control.Noop.
var burstPeers = []string{"gws"}

// runBurst measures clients that send faster than their handlers work.
func runBurst(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(1)
	libraries, remove, err := o.burstContenders(ctx)
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
	loads := o.burst.loads()
	o.progress.expect(o.rounds*(len(loads)+len(libraries)-1), 5*time.Second)
	for round := range o.rounds {
		for i := range loads {
			if err := burstRound(ctx, o, &loads[i], libraries, round, t); err != nil {
				return nil, err
			}
		}
	}
	return []*table{t}, nil
}

// burstContenders returns this library and those to compare it with.
func (o *options) burstContenders(ctx context.Context) (libraries []contender, remove func(), err error) {
	if o.peers == "none" {
		return []contender{{name: ourName}}, func() {}, nil
	}
	binary, remove, err := o.peersProgram(ctx)
	if err != nil {
		return nil, nil, err
	}
	libraries, err = o.contenders(ctx, binary)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return slices.DeleteFunc(libraries, func(c contender) bool {
		return c.name != ourName && !slices.Contains(burstPeers, c.name)
	}), remove, nil
}

// burstRound runs one load once, with each library in turn if it is compared.
// Another library begins in each round.
func burstRound(ctx context.Context, o *options, load *burstLoad, libraries []contender, round int, t *table) error {
	if !load.compared {
		libraries = libraries[:1]
	}
	for i := range libraries {
		lib := libraries[(round+i)%len(libraries)]
		o.progress.step("burst, round %d of %d: %s, %s", round+1, o.rounds, load.name, lib.name)
		if err := burstOnce(ctx, o, load, lib, t); err != nil {
			return fmt.Errorf("%s, %s: %w", load.name, lib.name, err)
		}
	}
	return nil
}

// burstOnce runs one load on a fresh server, and adds its row.
func burstOnce(ctx context.Context, o *options, load *burstLoad, lib contender, t *table) error {
	ctx, cancel := context.WithTimeout(ctx, burstLimit)
	defer cancel()
	opts := *o
	opts.serve = lib.serve
	srv, err := launch(ctx, &opts, 1, load.config)
	if err != nil {
		return err
	}
	defer srv.stop()
	c, err := dialBurst(ctx, srv.addr(o.path), load)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	before, err := srv.call(control.Command{Name: "mark"})
	if err != nil {
		return err
	}
	if err := srv.profile(o.cpuprofile); err != nil {
		return err
	}
	took, failed := c.run(ctx)
	if err := cmp.Or(failed, srv.endProfile(o.cpuprofile)); err != nil {
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
	t.add(load.name, lib.name, o.path, n, load.form.size(), millis(took), float64(n)/took.Seconds(),
		micros(after.CPU-before.CPU)/float64(n), float64(grown)/(1<<20), pauses, n-c.answered, c.disordered)
	return nil
}
