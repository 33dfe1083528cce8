package prometheus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/prometheus"
	"github.com/qi-realtime/ws/wstest"
)

// patience is the longest time that a test waits for one event.
const patience = 2 * time.Minute

// exporter serves the metrics of a manager.
func exporter(t *testing.T, m *ws.Manager) *httptest.Server {
	t.Helper()
	registry := prom.NewPedanticRegistry()
	require.NoError(t, registry.Register(prometheus.NewCollector(m)))
	s := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	t.Cleanup(s.Close)
	return s
}

// server is a Prometheus of Debian's package that scrapes one target each second.
type server struct {
	t   *testing.T
	url string
}

// startPrometheus runs a server with the alarms of alerts.yml.
func startPrometheus(t *testing.T, target string) *server {
	t.Helper()
	dir := t.TempDir()
	alerts, err := filepath.Abs("alerts.yml")
	require.NoError(t, err)
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: chat
    static_configs: [{targets: [%q]}]
`, alerts, target), 0o600))
	addr := freeAddr(t)
	var log strings.Builder
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start(), "Debian's package prometheus has it")
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	s := &server{t, "http://" + addr}
	eventually(t, func() bool {
		resp, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK
	}, "Prometheus is not ready")
	return s
}

// freeAddr returns an address of 127.0.0.1 on which nobody listens. Its port is below the ports
// that the kernel gives to clients, so that none of them takes it before Prometheus does.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	require.Fail(t, "no free port")
	return ""
}

func eventually(t *testing.T, condition func() bool, message string) {
	t.Helper()
	require.Eventually(t, condition, patience, 100*time.Millisecond, message)
}

// series is one value of the result of a query.
type series struct {
	labels map[string]string
	value  float64
}

// query evaluates expr.
func (s *server) query(expr string) (result []series, err error) {
	resp, err := http.Get(s.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	for _, r := range answer.Data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		result = append(result, series{r.Metric, value})
	}
	return result, nil
}

// await waits until expr has one value that satisfies ok.
func (s *server) await(expr string, ok func(v float64) bool) {
	s.t.Helper()
	var last []series
	var err error
	assert.Eventually(s.t, func() bool {
		last, err = s.query(expr)
		return err == nil && len(last) == 1 && ok(last[0].value)
	}, patience, 200*time.Millisecond, "no plausible value of %s", expr)
	if s.t.Failed() {
		s.t.Log(expr, last, err)
	}
}

// busyChat is a manager under a load with something of each kind: rooms, inline and pooled
// handlers, a slow client, refusals, a connection that breaks.
type busyChat struct {
	*wstest.Server
	t *testing.T
}

const (
	talkers = 5
	members = talkers + 1 // one of them does not read
)

func startBusyChat(t *testing.T) *busyChat {
	t.Helper()
	m, err := ws.NewManager(ws.WithLoops(2), ws.WithMessageQueueSize(16), ws.WithHeartbeatInterval(time.Second),
		ws.WithHeartbeatTimeout(time.Hour), // the client that does not read stays
		ws.WithUnsentBytes(4096), ws.WithSocketBuffers(4096, 4096),
		ws.WithOnConnect(func(c *ws.Client) error { return c.JoinRoom("hall") }))
	require.NoError(t, err)
	text := strings.Repeat("x", 1<<10)
	say := func(*ws.Client, *struct{}) error { return m.BroadcastToRoom("hall", []byte(text), nil) }
	require.NoError(t, ws.Handle0(m, "say", say))
	require.NoError(t, ws.Handle0(m, "count", func(*ws.Client, *struct{}) error { return nil }, ws.RunInline()))
	require.NoError(t, ws.Handle0(m, "think", func(*ws.Client, *struct{}) error {
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the time that is to be measured
		return nil
	}))
	m.Router.Freeze()
	return &busyChat{wstest.Start(t, m), t}
}

// talk keeps the clients busy until ctx ends.
func (b *busyChat) talk(ctx context.Context) {
	b.Dial(nil) // reads nothing
	var all sync.WaitGroup
	for range talkers {
		c := b.Dial(nil)
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if n%4 == 0 {
					c.Notify("say", struct{}{})
				}
				for _, event := range []string{"think", "count", "made up"} {
					c.Request(event, struct{}{})
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			_, err := b.TryDial(http.Header{"Origin": {"https://elsewhere.example"}})
			assert.Error(b.t, err)
			if passer, err := b.TryDial(nil); err == nil {
				passer.Close()
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the pace of the clients
		}
	})
	all.Wait()
}

// TestPrometheus asserts that a real Prometheus scrapes a loaded server, and answers plausible
// values, each query of the dashboard included.
func TestPrometheus(t *testing.T) {
	b := startBusyChat(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.talk(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	target := exporter(t, b.Manager)
	s := startPrometheus(t, strings.TrimPrefix(target.URL, "http://"))

	atLeast := func(least float64) func(float64) bool { return func(v float64) bool { return v >= least } }
	between := func(low, high float64) func(float64) bool {
		return func(v float64) bool { return low <= v && v <= high }
	}
	s.await(`count_over_time(ws_clients[2m])`, atLeast(5))
	for expr, plausible := range map[string]func(float64) bool{
		`up{job="chat"}`:                                             between(1, 1),
		`ws_clients`:                                                 between(members, members+1),
		`ws_rooms`:                                                   between(1, 1),
		`ws_handlers`:                                                between(3, 3),
		`rate(ws_opened_connections_total[10s])`:                     between(0.1, 21),
		`rate(ws_received_messages_total[10s])`:                      atLeast(4),
		`rate(ws_received_bytes_total[10s])`:                         atLeast(100),
		`rate(ws_sent_bytes_total[10s])`:                             atLeast(1 << 10),
		`ws_refused_handshakes_total{reason="origin"}`:               atLeast(1),
		`ws_refused_handshakes_total{reason="auth"}`:                 between(0, 0),
		`ws_closes_total{code="1000"}`:                               atLeast(1),
		`ws_dropped_messages_total{reason="full"}`:                   atLeast(1),
		`ws_blocked_connections`:                                     atLeast(1),
		`ws_slow_connections`:                                        atLeast(1),
		`ws_queued_memory_bytes`:                                     atLeast(1 << 10),
		`histogram_quantile(0.5, rate(ws_queued_bytes_bucket[10s]))`: between(1<<10, 1<<20),
		`histogram_quantile(0.5, rate(ws_handler_seconds_bucket{route="think"}[10s]))`:   between(0.01, 10),
		`histogram_quantile(0.5, rate(ws_handler_seconds_bucket{route="count"}[10s]))`:   between(0, 0.01),
		`rate(ws_handler_seconds_count{route="other"}[10s])`:                             atLeast(1),
		`histogram_quantile(0.5, rate(ws_publish_seconds_bucket[10s]))`:                  between(1e-6, 1),
		`histogram_quantile(0.5, rate(ws_mailbox_wait_seconds_bucket[10s]))`:             between(1e-7, 1),
		`histogram_quantile(0.5, sum by (le) (rate(ws_round_trip_seconds_bucket[20s])))`: between(1e-6, 10),
		`histogram_quantile(0.5, rate(ws_handshake_seconds_bucket[10s]))`:                between(1e-6, 10),
		`count(count by (route) (ws_handler_seconds_count))`:                             between(4, 4),
	} {
		s.await(expr, plausible)
	}
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, s) })
	t.Run("rules", func(t *testing.T) {
		broken, err := s.query(`sum(prometheus_rule_evaluation_failures_total)`)
		require.NoError(t, err)
		assert.Empty(t, broken, "this server does not scrape itself")
		resp, err := http.Get(s.url + "/api/v1/rules")
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		rules, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Contains(t, string(rules), `"name":"WSMessagesDropped"`)
		assert.NotContains(t, string(rules), `"health":"err"`)
	})
}

// checkDashboard asserts that each query of the dashboard has a value.
func checkDashboard(t *testing.T, s *server) {
	t.Helper()
	text, err := os.ReadFile("grafana.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	queries := 0
	values := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")
	for _, p := range dashboard.Panels {
		if p.Type == "row" {
			continue
		}
		assert.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			queries++
			eventually(t, func() bool { // a busy machine may scrape too rarely for a rate
				result, err := s.query(values.Replace(target.Expr))
				require.NoError(t, err, p.Title)
				return len(result) > 0
			}, p.Title+": "+target.Expr)
		}
	}
	assert.Greater(t, queries, 40)
}

// promtool runs promtool, which has to succeed, and returns its output.
func promtool(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = stdin
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "promtool %s: %s", args, output)
	return string(output)
}

// TestPromtool asserts that promtool has no complaint about the metrics and the alarms, and
// that the alarms come when they should.
func TestPromtool(t *testing.T) {
	s := start(t)
	s.Dial(nil)
	resp, err := http.Get(exporter(t, s.Manager).URL)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	assert.Empty(t, promtool(t, resp.Body, "check", "metrics"))
	assert.Contains(t, promtool(t, nil, "check", "rules", "alerts.yml"), "SUCCESS")
	assert.Contains(t, promtool(t, nil, "test", "rules", "alerts_test.yml"), "SUCCESS")
}
