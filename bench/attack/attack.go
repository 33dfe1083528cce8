//go:build linux

package attack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// Command is the command attack.
var Command = command.Command{
	Name:  "attack",
	About: "what attackers cost healthy clients and the server, one kind after the other",
	Help: `Runs one kind of abuse after the other, each against a fresh server with the
library's defaults: attackers in a process of their own, beside 20 healthy clients
whose requests are due at fixed times, and newcomers that connect. It says what the
healthy clients notice of it, what the server takes of processor, memory and
descriptors, during the attack and after it, and what the attackers got.`,
	Example:  "bench attack -only hangup,rooms -duration 5s -path http",
	NotInAll: true,
	New:      func() command.Runner { return newAttackCampaign() },
}

// campaign is a run of attack.
type campaign struct {
	duration time.Duration
	only     string
	share    float64
	tls      bool
}

func newAttackCampaign() *campaign { return &campaign{duration: load.DefaultDuration, share: 1} }

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
	// recoveryLimit is how long a server may take after an attack until it is
	// measured as it then is.
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

// attackRun is one attack and what came of it.
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
	loot                 loot
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
	clients := r.clients
	share := r.share
	if r.fixed {
		share = 1
	}
	clients = max(1, int(float64(clients)*share))
	arg, err := json.Marshal(target{
		Name: r.name, Address: r.srv.Addr(r.session.Path), TLS: r.speaksTLS(), Duration: r.duration, Clients: clients, Share: share,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.duration+strikeGrace)
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with the process, which ends with ctx
		runtime.LockOSThread() // and the thread ends with the goroutine: it keeps its low priority
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, attackerNice)
		cmd := exec.CommandContext(ctx, os.Args[0], "strike", string(arg))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &r.loot)
		}
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

// tables are the results of attack.
type tables struct{ clients, server, attackers *result.Table }

func newTables() *tables {
	name := result.Column{"attack", "attack", "%s"}
	return &tables{
		&result.Table{Command: "attack", Title: "Attacks: 20 healthy clients that send 20 requests a second each, and newcomers that connect beside it", Columns: []result.Column{
			name,
			{"path", "path", "%s"},
			{"p50_before_ms", "p50 before, ms", "%.1f"},
			{"p99_before_ms", "p99", "%.1f"},
			{"p50_ms", "during p50", "%.1f"},
			{"p99_ms", "p99", "%.1f"},
			{"p50_after_ms", "after p50", "%.1f"},
			{"p99_after_ms", "p99", "%.1f"},
			{"answered", "answered", "%d"},
			{"lost", "lost", "%d"},
			{"closed", "closed", "%d"},
			{"disordered", "disordered", "%d"},
			{"newcomers", "newcomers", "%d"},
			{"newcomer_p50_ms", "p50 ms", "%.1f"},
			{"newcomer_max_ms", "max", "%.1f"},
			{"refused", "refused", "%d"},
			{"reasons", "why closed or refused", "%s"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, Title: "99th percentile of healthy clients", X: []string{"attack", "path"},
			Y: []string{"p99_before_ms", "p99_ms", "p99_after_ms"}, Axis: "ms", LogY: true,
		}}},
		&result.Table{Command: "attack-server", Title: "The attacked server", Columns: []result.Column{
			name,
			{"cores", "processors taken", "%.2f"},
			{"rss_before_mib", "RSS before MiB", "%.1f"},
			{"rss_peak_mib", "peak", "%.1f"},
			{"rss_after_mib", "after", "%.1f"},
			{"heap_before_mib", "heap before MiB", "%.1f"},
			{"heap_peak_mib", "peak", "%.1f"},
			{"heap_after_mib", "after", "%.1f"},
			{"descriptors_before", "descriptors before", "%d"},
			{"descriptors_peak", "peak", "%d"},
			{"descriptors", "after", "%d"},
			{"goroutines_before", "goroutines before", "%d"},
			{"goroutines_peak", "peak", "%d"},
			{"goroutines", "after", "%d"},
			{"log_lines", "lines logged", "%d"},
			{"recovered_ms", "as before after ms", "%.0f"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, X: []string{"attack"}, Y: []string{"rss_peak_mib", "rss_after_mib"}, Axis: "MiB",
		}}},
		&result.Table{Command: "attack-attackers", Title: "The attackers", Columns: []result.Column{
			name,
			{"connects", "connects", "%d"},
			{"sent_mib", "MiB taken of them", "%.1f"},
			{"received_mib", "MiB sent to them", "%.1f"},
			{"answers", "messages", "%d"},
			{"kept", "open at the end", "%d"},
			{"ended", "ended by the server, with", "%s"},
		}},
	}
}

func (t *tables) all() []*result.Table { return []*result.Table{t.clients, t.server, t.attackers} }

// add adds the rows of an attack.
func (t *tables) add(r *attackRun) {
	h, n := r.h, r.n
	reasons := make(map[string]int)
	maps.Copy(reasons, n.refused)
	for why, count := range h.reasons {
		reasons[why] += count
	}
	var answered uint64
	for _, count := range h.answered {
		answered += count
	}
	t.clients.Add(r.name, r.session.Path,
		result.Millis(h.rtt[phaseBefore].Quantile(0.5)), result.Millis(h.rtt[phaseBefore].Quantile(0.99)),
		result.Millis(h.rtt[phaseDuring].Quantile(0.5)), result.Millis(h.rtt[phaseDuring].Quantile(0.99)),
		result.Millis(h.rtt[phaseAfter].Quantile(0.5)), result.Millis(h.rtt[phaseAfter].Quantile(0.99)),
		answered, r.lost, h.ended, h.disordered, n.came,
		result.Millis(n.took[phaseDuring].Quantile(0.5)), result.Millis(n.took[phaseDuring].Max()), n.refusals(), counted(reasons))
	elapsed := time.Duration(r.ended.At - r.before.At)
	t.server.Add(r.name, (r.ended.CPU-r.before.CPU).Seconds()/elapsed.Seconds(),
		mebibytes(r.before.RSS), mebibytes(r.after.PeakRSS), mebibytes(r.after.RSS),
		mebibytes(r.before.HeapAlloc), mebibytes(r.peak.HeapAlloc), mebibytes(r.after.HeapAlloc),
		r.before.Descriptors, r.peak.Descriptors, r.after.Descriptors,
		r.before.Goroutines, r.peak.Goroutines, r.after.Goroutines,
		r.after.LogLines, result.Millis(r.recovered))
	t.attackers.Add(r.name, r.loot.Connects, mebibytes(r.loot.Sent), mebibytes(r.loot.Received),
		r.loot.Answers, r.loot.Kept, counted(r.loot.Ended))
}

func mebibytes(n uint64) float64 { return float64(n) / (1 << 20) }

// counted is a list of causes with their counts, the most frequent first.
func counted[N int | uint64](m map[string]N) string {
	causes := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if m[a] != m[b] {
			return int(m[b]) - int(m[a])
		}
		return strings.Compare(a, b)
	})
	for i, why := range causes {
		causes[i] = fmt.Sprintf("%d: %s", m[why], why)
	}
	return strings.Join(causes, "; ")
}
