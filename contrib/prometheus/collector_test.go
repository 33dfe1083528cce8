package prometheus_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/prometheus"
	"github.com/qi-realtime/ws/wstest"
)

// start runs a manager with two event loops and one event.
func start(t *testing.T, opts ...ws.Option) *wstest.Server {
	t.Helper()
	m, err := ws.NewManager(append([]ws.Option{ws.WithLoops(2)}, opts...)...)
	require.NoError(t, err)
	require.NoError(t, ws.Handle0(m, "say", func(*ws.Client, *struct{}) error { return nil }))
	return wstest.Start(t, m)
}

// gather returns the metric families of a collector by name.
func gather(t *testing.T, c prom.Collector) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prom.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	families, err := registry.Gather()
	require.NoError(t, err)
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

// value returns the value of the metric with those labels, as name=value.
func value(t *testing.T, f *dto.MetricFamily, labels ...string) float64 {
	t.Helper()
	require.NotNil(t, f)
	for _, m := range f.Metric {
		var has []string
		for _, l := range m.Label {
			has = append(has, l.GetName()+"="+l.GetValue())
		}
		if !slices.Equal(has, labels) {
			continue
		}
		switch {
		case m.Counter != nil:
			return m.Counter.GetValue()
		case m.Gauge != nil:
			return m.Gauge.GetValue()
		}
		return float64(m.Histogram.GetSampleCount())
	}
	require.Fail(t, "no such metric", "%s %q", f.GetName(), labels)
	return 0
}

func TestCollector(t *testing.T) {
	s := start(t, ws.WithCheckOrigin(func(*http.Request) bool { return true }))
	c := s.Dial(nil)
	for range 3 {
		require.EqualValues(t, 200, c.Request("say", struct{}{}).Code)
	}
	require.EqualValues(t, 404, c.Request("made up", nil).Code)
	leaving := s.Dial(nil)
	leaving.Close()

	var families map[string]*dto.MetricFamily
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{1, "ws_clients", nil},
		{2, "ws_opened_connections_total", nil},
		{4, "ws_received_messages_total", nil},
		{1, "ws_closes_total", []string{"code=1000"}},
		{0, "ws_closes_total", []string{"code=1006"}},
		{0, "ws_refused_handshakes_total", []string{"reason=origin"}},
		{2, "ws_handshake_seconds", nil},
		{3, "ws_handler_seconds", []string{"route=say"}},
		{1, "ws_handler_seconds", []string{"route=other"}},
		{4, "ws_mailbox_wait_seconds", nil},
	} {
		eventually(t, func() bool { // a handler's time is noted behind its answer
			families = gather(t, prometheus.NewCollector(s.Manager))
			return value(t, families[want.name], want.labels...) == want.value
		}, fmt.Sprint(want))
	}
	for name, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				assert.Contains(t, []string{"reason", "code", "route", "loop"}, l.GetName(), name)
				assert.NotContains(t, l.GetValue(), "made up", "clients choose no labels")
			}
		}
	}
}

// With WithLoops each loop has its own figures, whose sum is the figure without it.
func TestLoops(t *testing.T) {
	s := start(t)
	for range 6 {
		s.Dial(nil)
	}
	eventually(t, func() bool {
		f := gather(t, prometheus.NewCollector(s.Manager, prometheus.WithLoops()))["ws_opened_connections_total"]
		require.Len(t, f.Metric, 2)
		return value(t, f, "loop=0")+value(t, f, "loop=1") == 6
	}, "not all are counted")
	closes := gather(t, prometheus.NewCollector(s.Manager, prometheus.WithLoops()))["ws_closes_total"]
	assert.InDelta(t, 0, value(t, closes, "code=1000", "loop=1"), 0)
}

// Several managers share a registry by their names.
func TestSeveralManagers(t *testing.T) {
	a, b := start(t), start(t)
	a.Dial(nil)
	registry := prom.NewPedanticRegistry()
	require.NoError(t, registry.Register(prometheus.NewCollector(a.Manager, prometheus.WithName("a"))))
	require.NoError(t, registry.Register(prometheus.NewCollector(b.Manager, prometheus.WithName("b"))))
	require.Error(t, registry.Register(prometheus.NewCollector(b.Manager, prometheus.WithName("b"))), "twice")
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "ws_clients" {
			assert.InDelta(t, 1, value(t, f, "manager=a"), 0)
			assert.InDelta(t, 0, value(t, f, "manager=b"), 0)
		}
	}
}

// A scrape is possible before Run, while clients come and go, during Shutdown, and after it.
func TestScrapeAtAnyTime(t *testing.T) {
	m, err := ws.NewManager(ws.WithLoops(2))
	require.NoError(t, err)
	c := prometheus.NewCollector(m)
	gather(t, c)
	ended := make(chan error, 1)
	go func() { ended <- m.Run() }()
	stop := make(chan struct{})
	var scrapes sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					_, err := testutil.CollectAndLint(c)
					assert.NoError(t, err)
				}
			}
		})
	}
	for i := range 50 {
		require.NoError(t, ws.Handle0(m, fmt.Sprintf("e%d", i), func(*ws.Client, *struct{}) error { return nil }))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
	require.NoError(t, <-ended)
	close(stop)
	scrapes.Wait()
	gather(t, c)
}

// promlint finds nothing, and no two names differ in the suffix of a counter only, which
// OpenMetrics forbids.
func TestNames(t *testing.T) {
	s := start(t)
	for _, opts := range [][]prometheus.Option{nil, {prometheus.WithLoops(), prometheus.WithName("n")}} {
		c := prometheus.NewCollector(s.Manager, opts...)
		problems, err := testutil.CollectAndLint(c)
		require.NoError(t, err)
		assert.Empty(t, problems)
		bases := make(map[string]string)
		for name := range gather(t, c) {
			base := strings.TrimSuffix(name, "_total")
			assert.Empty(t, bases[base], name)
			bases[base] = name
		}
	}
}

// row is a line of a table in the README that begins with the name of a metric.
var row = regexp.MustCompile("(?m)^\\| `(ws_[a-z_]+)(?:\\{([a-z, ]+)\\})?` \\|")

// The README has each metric with its labels, and no other.
func TestReadmeListsAllMetrics(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var listed []string
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		listed = append(listed, fmt.Sprintf("%s [%s]", m[1], strings.ReplaceAll(m[2], ",", "")))
	}
	descs := make(chan *prom.Desc, 1000)
	prometheus.NewCollector(start(t).Manager).Describe(descs)
	close(descs)
	description := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	var described []string
	for d := range descs {
		m := description.FindStringSubmatch(d.String())
		require.NotNil(t, m, d.String())
		described = append(described, fmt.Sprintf("%s [%s]", m[1], strings.ReplaceAll(m[2], ",", " ")))
	}
	assert.ElementsMatch(t, described, listed)
}
