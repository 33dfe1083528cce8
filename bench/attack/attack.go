//go:build linux

package attack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// Command is the command attack.
var Command = command.Command{
	Name:  "attack",
	About: "the cost of attacks for healthy clients and the server, one kind after the other",
	Help: `Runs one kind of abuse after the other, each against a fresh server with the
library's defaults: attackers in a process of their own, beside 20 healthy clients
whose requests are due at fixed times, and newcomers that connect. It measures the
latency and the losses of the healthy clients, the server's processor time, memory
and descriptors, during the attack and after it, and the success of the attackers.`,
	Example:  "bench attack -only hangup,rooms -duration 5s -path http",
	NotInAll: true,
	New:      func() command.Runner { return newCampaign() },
}

// campaign is a run of attack.
type campaign struct {
	duration time.Duration
	only     string
	share    float64
	tls      bool
}

func newCampaign() *campaign { return &campaign{duration: load.DefaultDuration, share: 1} }

func (a *campaign) Flags(fs *flag.FlagSet) {
	load.DurationFlag(fs, &a.duration)
	fs.StringVar(&a.only, "only", a.only, "attack: `names` such as hangup,rooms; all unless set")
	fs.Float64Var(&a.share, "share", a.share, "attack: `share` of the clients and rates of each attack, above 0, up to 1")
	fs.BoolVar(&a.tls, "tls", a.tls, "attack: the server speaks TLS in every attack")
}

func (a *campaign) Validate(*command.Session) error {
	if !(a.share > 0 && a.share <= 1) {
		return errors.New("bench: -share is out of range, must be above 0 and 1 at most")
	}
	_, err := a.list()
	return err
}

// list reads -only.
func (a *campaign) list() ([]attack, error) {
	if a.only == "" {
		return attacks, nil
	}
	var list []attack
	for name := range strings.SplitSeq(a.only, ",") {
		one := attackNamed(name)
		if one == nil {
			return nil, fmt.Errorf("bench: -only names %q, must be some of %s", name, strings.Join(Names(), ","))
		}
		list = append(list, *one)
	}
	return list, nil
}

// Names returns the names of all attacks.
func Names() (names []string) {
	for i := range attacks {
		names = append(names, attacks[i].name)
	}
	return names
}

const (
	// recoveryLimit bounds the wait for the server's recovery after an attack.
	recoveryLimit = 15 * time.Second
	// strikeGrace is how long an attacking process may take beyond its time.
	strikeGrace = 20 * time.Second
	// sampleInterval is the time between looks at the server during an attack.
	sampleInterval = 200 * time.Millisecond
	// attackerNice makes the kernel prefer server and healthy clients to the
	// attackers, which in earnest have processors of their own.
	attackerNice = 5
)

// Run runs the attacks, each against a fresh server.
func (a *campaign) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.Path = cmp.Or(s.Path, "native")
	list, err := a.list()
	if err != nil {
		return nil, err
	}
	tables := newTables()
	s.Progress.Expect(len(list), 2*a.duration)
	var failed []error
	for i := range list {
		s.Progress.Step("attack %s", list[i].name)
		r := &attackRun{campaign: a, session: s, attack: &list[i]}
		if err := r.run(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", list[i].name, err))
			continue
		}
		tables.add(r)
	}
	return tables.all(), errors.Join(failed...)
}

// attackRun is one attack and its results.
type attackRun struct {
	*campaign
	session *command.Session
	*attack
	srv *server.Process
	h   *healthy
	n   *newcomers

	before, ended, after *control.Report
	peak                 control.Report // the highest of each sample
	recovered            time.Duration  // after the attack's end; the limit if never
	tally                tally
	lost                 uint64
}

func (r *attackRun) speaksTLS() bool { return r.attack.tls || r.campaign.tls }

// run starts a server, and attacks it beside healthy clients.
func (r *attackRun) run(ctx context.Context) (err error) {
	cfg := r.server
	cfg.Mode, cfg.TLS = control.Attack, r.speaksTLS()
	if r.srv, err = server.Start(ctx, &r.session.Options, cfg); err != nil {
		return err
	}
	defer r.srv.Stop()
	d := dialer{r.srv.Addr(r.session.Path), r.speaksTLS()}
	if r.h, err = newHealthy(ctx, d, r.stream > 0); err != nil {
		return err
	}
	defer r.h.stop()
	if r.stream > 0 {
		publish := control.Command{Name: "publish", Size: r.streamBytes, Rate: r.stream}
		if _, err := r.srv.Call(publish); err != nil {
			return err
		}
	}
	r.n = newNewcomers(ctx, d, r.h.phase.Load)
	err = r.phases(ctx)
	r.n.end()
	if err != nil {
		return err
	}
	return r.end(ctx)
}

// aside is how long the phases before and after the attack last at least.
func (r *attackRun) aside() time.Duration {
	return min(2*time.Second, max(r.duration/2, 200*time.Millisecond))
}

// phases lets the time before, during and after the attack pass.
func (r *attackRun) phases(ctx context.Context) (err error) {
	if _, err = r.srv.Call(control.Command{Name: "mark"}); err != nil {
		return err
	}
	if err = load.Wait(ctx, r.aside()); err != nil {
		return err
	}
	if r.before, err = r.srv.Call(control.Command{Name: "settle"}); err != nil {
		return err
	}
	r.h.phase.Store(phaseDuring)
	if err = r.strike(ctx); err != nil {
		return err
	}
	r.h.phase.Store(phaseAfter)
	if r.ended, err = r.srv.Call(control.Command{Name: "report"}); err != nil {
		return err
	}
	return r.recover(ctx)
}

// strike runs the attacking process, and samples the server meanwhile.
func (r *attackRun) strike(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients, share := r.scaled(r.share)
	done := make(chan error, 1)
	go func() { // ends with the process, which ends with ctx
		var err error
		r.tally, err = launch(ctx, &target{
			Name: r.name, Address: r.srv.Addr(r.session.Path), TLS: r.speaksTLS(), Duration: r.duration, Clients: clients,
			Share: share,
		})
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(sampleInterval):
			sample, err := r.srv.Call(control.Command{Name: "report"})
			if err != nil {
				return err
			}
			r.keepPeak(sample)
		}
	}
}

// scaled returns the number of clients and the share of the rates for a share of the
// attack.
func (a *attack) scaled(share float64) (clients int, rates float64) {
	if a.fixed {
		share = 1
	}
	return max(1, int(float64(a.clients)*share)), share
}

// launch runs an attacking process to its end, with a low priority.
func launch(ctx context.Context, t *target) (tally, error) {
	arg, err := json.Marshal(t)
	if err != nil {
		return tally{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.Duration+strikeGrace)
	defer cancel()
	done := make(chan error, 1)
	var result tally
	go func() { // ends with the process, which ends with ctx
		runtime.LockOSThread() // and the thread ends with the goroutine: it keeps its low priority
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, attackerNice)
		cmd := exec.CommandContext(ctx, os.Args[0], "strike", string(arg))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &result)
		}
		done <- err
	}()
	err = <-done
	return result, err
}

func (r *attackRun) keepPeak(s *control.Report) {
	r.peak.HeapAlloc = max(r.peak.HeapAlloc, s.HeapAlloc)
	r.peak.Descriptors = max(r.peak.Descriptors, s.Descriptors)
	r.peak.Goroutines = max(r.peak.Goroutines, s.Goroutines)
}

// recover waits until the server has no more than the healthy clients, which are
// answered, or until it has had the time for it.
func (r *attackRun) recover(ctx context.Context) error {
	began := time.Now()
	if err := load.Wait(ctx, r.aside()); err != nil {
		return err
	}
	for {
		now, err := r.srv.Call(control.Command{Name: "report"})
		if err != nil {
			return err
		}
		under := int(r.n.left.Load()) + 1
		r.recovered = time.Since(began)
		if now.Clients <= healthyClients+under && now.Descriptors <= r.before.Descriptors+under+2 &&
			r.h.missing() <= healthyClients || r.recovered > recoveryLimit {
			return nil
		}
		if err := load.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// end waits for the last answers, and measures the server.
func (r *attackRun) end(ctx context.Context) (err error) {
	var published uint64
	if r.stream > 0 {
		stopped, err := r.srv.Call(control.Command{Name: "stop"})
		if err != nil {
			return err
		}
		published = stopped.Published
	}
	if r.lost, err = r.h.finish(ctx, published); err != nil {
		return err
	}
	r.after, err = r.srv.Call(control.Command{Name: "settle"})
	return err
}
