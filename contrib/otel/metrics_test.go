package otel_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/otel"
	"github.com/qi-realtime/ws/wstest"
)

// receiver takes metrics in the OTLP protocol over HTTP. Safe for concurrent use.
type receiver struct {
	mu   sync.Mutex
	last *collector.ExportMetricsServiceRequest // guarded by mu
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = zr
	}
	b, err := io.ReadAll(body)
	msg := new(collector.ExportMetricsServiceRequest)
	if err == nil {
		err = proto.Unmarshal(b, msg)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.last = msg
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// metrics returns the received metrics of the scope by name.
func (r *receiver) metrics(t *testing.T) map[string]*metrics.Metric {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.NotNil(t, r.last)
	all := make(map[string]*metrics.Metric)
	for _, resource := range r.last.ResourceMetrics {
		for _, scope := range resource.ScopeMetrics {
			assert.Equal(t, "github.com/qi-realtime/ws/contrib/otel", scope.Scope.Name)
			for _, m := range scope.Metrics {
				assert.NotContains(t, all, m.Name, "one metric of a name")
				all[m.Name] = m
			}
		}
	}
	return all
}

// sum adds the values of a metric, and returns the number of its points.
func sum(m *metrics.Metric) (total float64, points int) {
	values := m.GetSum().GetDataPoints()
	if m.GetGauge() != nil {
		values = m.GetGauge().GetDataPoints()
	}
	for _, p := range values {
		total += p.GetAsDouble()
	}
	return total, len(values)
}

// callsByRoute returns the number of values by route, of the routes that have any.
func callsByRoute(m *metrics.Metric) map[string]uint64 {
	calls := make(map[string]uint64)
	for _, p := range m.GetHistogram().GetDataPoints() {
		if p.Count > 0 {
			calls[p.Attributes[0].Value.GetStringValue()] = p.Count
		}
	}
	return calls
}

// TestMetrics sends the figures of a loaded manager with the SDK's exporter, and compares them
// with the manager's own.
func TestMetrics(t *testing.T) {
	r := new(receiver)
	srv := httptest.NewServer(r)
	defer srv.Close()
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(srv.URL+"/v1/metrics"))
	require.NoError(t, err)
	m, err := ws.NewManager(ws.WithLoops(2))
	require.NoError(t, err)
	require.NoError(t, ws.Handle(m, "order.place", func(_ *ws.Client, o *order) (*order, error) { return o, nil }))
	reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(otel.NewProducer(m)))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	defer func() { assert.NoError(t, provider.Shutdown(t.Context())) }()

	s := wstest.Start(t, m)
	for range 3 {
		require.Equal(t, 200, s.Dial(nil).Request("order.place", order{}).Code)
	}
	_, err = s.TryDial(http.Header{"Origin": {"http://evil.example"}})
	require.Error(t, err)
	require.Eventually(t, func() bool { // a handler's time is noted behind its answer
		st := m.Stats()
		counts := make(map[string]uint64)
		for h := range st.Histograms() {
			counts[h.Name] += h.Count()
		}
		return counts["handler_seconds"] == 3 && counts["handshake_seconds"] == 3 && st.Refused.Total() == 1
	}, time.Minute, time.Millisecond)
	require.NoError(t, provider.ForceFlush(t.Context()))

	got := r.metrics(t)
	want := m.Stats()
	for f := range want.Figures() {
		assert.Contains(t, got, "ws."+f.Name)
	}
	for h := range want.Histograms() {
		assert.Contains(t, got, "ws."+h.Name)
	}
	handshakes := got["ws.handshake_seconds"].GetHistogram().GetDataPoints()
	require.Len(t, handshakes, 1)
	assert.EqualValues(t, 3, handshakes[0].Count)
	assert.Len(t, handshakes[0].BucketCounts, len(handshakes[0].ExplicitBounds)+1)
	assert.Equal(t, map[string]uint64{"order.place": 3}, callsByRoute(got["ws.handler_seconds"]))
	for name, tt := range map[string]struct {
		value  float64
		points int
		unit   string
	}{
		"ws.clients":                {3, 1, "1"},
		"ws.loop_opened_total":      {3, 2, "1"},
		"ws.loop_messages_in_total": {3, 2, "1"},
		"ws.loop_bytes_in_total":    {float64(want.Total.BytesIn), 2, "By"},
		"ws.refused_total":          {1, -1, "1"},
	} {
		require.Contains(t, got, name)
		total, points := sum(got[name])
		assert.InDelta(t, tt.value, total, 0, name)
		if tt.points > 0 {
			assert.Equal(t, tt.points, points, name)
		}
		assert.Equal(t, tt.unit, got[name].Unit, name)
		assert.NotEmpty(t, got[name].Description, name)
	}
	assert.True(t, got["ws.refused_total"].GetSum().IsMonotonic)
	assert.NotNil(t, got["ws.clients"].GetGauge())
	reasons := make(map[string]float64)
	for _, p := range got["ws.refused_total"].GetSum().DataPoints {
		reasons[p.Attributes[0].Value.GetStringValue()] = p.GetAsDouble()
	}
	assert.InDelta(t, 1, reasons["origin"], 0, "%v", reasons)
}
