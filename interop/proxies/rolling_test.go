package proxies_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mostDrains bounds the drains until each server has had one at its pace. A busy machine delays
// some.
const mostDrains = 10

// rollout is a rolling restart under load.
type rollout struct {
	clients               int
	grace, window, settle time.Duration
	every                 time.Duration // between the texts of a client
	tolerance             float64       // of the pace
}

// Two processes behind a proxy are restarted one after the other. Their clients lose no text,
// read no error, and reconnect at the pace of the drain.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	r := rollout{
		clients: 200, grace: time.Second, window: 5 * time.Second, settle: 5 * time.Second,
		every: 500 * time.Millisecond, tolerance: 0.5, // the machine may be busy
	}
	program := buildService(t)
	for _, p := range products {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			r.run(t, program, p)
		})
	}
}

// fragment returns the part of docs/operations.md for several servers behind p.
func (p *product) fragment(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```"+p.name+"\n")
	require.True(t, ok)
	block, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	return block
}

// retryOf503 is the line of nginx that passes a refused client on to another server.
var retryOf503 = regexp.MustCompile(`proxy_next_upstream [^;]+;`)

// before starts p before two servers, with the configuration of docs/operations.md.
func (p *product) before(t *testing.T, a, b string) *proxy {
	t.Helper()
	servers := strings.NewReplacer("10.0.0.1:8080", a, "10.0.0.2:8080", b).Replace(p.fragment(t))
	replace := map[string]string{
		"backend ws\n    option httpchk GET /readyz\n    server a <backend> check inter 200ms\n": strings.Replace(
			servers, "inter 2s", "inter 200ms", 1),
		"maxconn 4096": "maxconn 6000",
	}
	if p == nginx {
		upstream, _, _ := strings.Cut(servers, "\n\n")
		const line = "proxy_set_header Upgrade $http_upgrade;"
		replace = map[string]string{
			"upstream ws {\n    server <backend>;\n}": upstream,
			line: retryOf503.FindString(servers) + "\n" + line,
		}
	}
	return p.start(t, "", setup{replace: replace})
}

func (r rollout) run(t *testing.T, program program, p *product) {
	args := []string{
		"-per-second=1000",
		fmt.Sprintf("-grace=%v", r.grace), fmt.Sprintf("-window=%v", r.window), fmt.Sprintf("-settle=%v", r.settle),
	}
	servers := []*service{newService(t, program, args...), newService(t, program, args...)}
	x := p.before(t, servers[0].addr, servers[1].addr)

	f := newFleet(x.plain.host, program.token(t, "member"), r.clients, r.every)
	ctx, cancel := context.WithCancel(t.Context())
	defer f.running.Wait()
	defer cancel()
	f.start(ctx)
	r.everybody(t, f)
	paced := make(map[*service]bool) // in one of its drains the clients moved at its pace
	for round := 0; len(paced) < len(servers); round++ {
		require.Less(t, round, mostDrains, "the pace does not hold")
		i := round % 2
		s, other := servers[i], servers[1-i]
		before := r.counted(t, s, other)
		require.Positive(t, before, "the proxy uses one server alone")
		began := time.Now()
		d := s.drain()
		assert.Equal(t, before, d.Stats.Moved+d.Stats.Closed)
		assert.Zero(t, d.Stats.Forced)
		t.Logf("%s, server %d: drained in %.1f s: %+v; refused, and retried by the proxy: %d",
			p.name, i, time.Since(began).Seconds(), d.Stats, d.Refused["Stopped"])
		var moves []move
		eventually(t, func() bool { moves = f.takeMoves(before); return moves != nil }, "not everybody has moved")
		r.everybody(t, f)
		if r.spread(t, moves, before) {
			paced[s] = true
		}
		eventually(t, func() bool { return int(other.metrics()["ws_clients"]) == r.clients }, "old connections stay")
		s.start()
		r.used(t, x, program, s)
	}

	for _, m := range f.members {
		m.quiet.Store(true)
	}
	r.settled(t, f)
	f.report(t)
	cancel()
	f.running.Wait()
}

// counted waits until the servers count the members alone, and returns their number at s.
func (r rollout) counted(t *testing.T, s, other *service) (n int) {
	t.Helper()
	eventually(t, func() bool {
		n = int(s.metrics()["ws_clients"])
		return n+int(other.metrics()["ws_clients"]) == r.clients
	}, "others than the members are connected")
	return n
}

// everybody waits until each member has a connection.
func (r rollout) everybody(t *testing.T, f *fleet) {
	t.Helper()
	eventually(t, func() bool { return f.connected() == r.clients }, "not everybody is connected")
}

// used waits until the proxy sends a new client to s.
func (r rollout) used(t *testing.T, x *proxy, program program, s *service) {
	t.Helper()
	probes := newFleet(x.plain.host, program.token(t, "probe"), 1, time.Hour)
	probes.members[0].room = "probes"
	eventually(t, func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer probes.running.Wait()
		defer cancel()
		c, err := probes.members[0].tryConnect(ctx)
		require.NoError(t, err)
		defer c.leave()
		return s.metrics()["ws_clients"] > 0
	}, "the proxy does not use the server again")
}

// spread returns whether n clients moved from one server at its pace.
func (r rollout) spread(t *testing.T, moves []move, n int) bool {
	t.Helper()
	paced := true
	require.Len(t, moves, n)
	pace := float64(n) / r.window.Seconds()
	times := map[string]func(m move) time.Time{
		"asked":  func(m move) time.Time { return m.asked },
		"opened": func(m move) time.Time { return m.opened },
	}
	for name, at := range times {
		slices.SortFunc(moves, func(a, b move) int { return at(a).Compare(at(b)) })
		from, to := n/10, n-n/10-1
		measured := float64(to-from) / at(moves[to]).Sub(at(moves[from])).Seconds()
		most, first := 0, 0
		for last := range moves {
			for at(moves[last]).Sub(at(moves[first])) > time.Second {
				first++
			}
			most = max(most, last-first+1)
		}
		t.Logf("%s: %.1f a second in the middle 80 %%, configured %.1f; at most %d in one second", name, measured, pace, most)
		paced = paced && math.Abs(measured-pace) <= r.tolerance*pace && float64(most) < 2*pace+10
	}
	for _, notice := range []bool{true, false} {
		var gaps []time.Duration
		for _, m := range moves {
			if m.notice == notice {
				gaps = append(gaps, m.gap)
			}
		}
		require.NotEmpty(t, gaps)
		slices.Sort(gaps)
		t.Logf("understands ws.reconnect: %v: %d clients; without a connection: median %v, longest %v",
			notice, len(gaps), gaps[len(gaps)/2], gaps[len(gaps)-1])
	}
	return paced
}

// settled checks that each accepted text was delivered to each member for which it was queued.
func (r rollout) settled(t *testing.T, f *fleet) {
	t.Helper()
	last := f.account()
	eventually(t, func() bool {
		was := last
		last = f.account()
		return last == was && last.wrong == 0
	}, fmt.Sprintf("texts are lost: %+v", last))
	t.Logf("%d texts accepted, %d deliveries, none lost; %d without an answer when their connection ended",
		last.accepted, last.received, last.unanswered)
	assert.Equal(t, last.queued, last.received)
}
