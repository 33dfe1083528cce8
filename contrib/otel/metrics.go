package otel

import (
	"context"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/qi-realtime/ws"
)

// producer reads the figures of a manager. Immutable.
type producer struct {
	manager *ws.Manager
	start   time.Time
}

// NewProducer returns a source of metrics for a reader of the SDK (metric.WithProducer). Each
// collection takes one snapshot, Manager.Stats; nothing else runs, and no message costs
// anything. Call it before Manager.Run, because its time is the start of the counters.
//
// The names are those of ws.Figure and ws.Histogram with the prefix "ws.". The attribute
// "reason" is the reason for a drop, refusal or close, "loop" the index of an event loop, and
// "route" the event of a handler.
func NewProducer(m *ws.Manager) metric.Producer { return &producer{manager: m, start: time.Now()} }

// Produce returns the metrics. Safe for concurrent use.
func (p *producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	stats := p.manager.Stats()
	now := time.Now()
	all := p.histograms(&stats, now)
	at := make(map[string]int) // index in all
	for f, value := range stats.Figures() {
		i, ok := at[f.Name]
		if !ok {
			i = len(all)
			at[f.Name] = i
			all = append(all, newMetrics(&f))
		}
		point := metricdata.DataPoint[float64]{
			Attributes: attributes(&f), StartTime: p.start, Time: now, Value: value,
		}
		switch data := all[i].Data.(type) {
		case metricdata.Sum[float64]:
			data.DataPoints = append(data.DataPoints, point)
			all[i].Data = data
		case metricdata.Gauge[float64]:
			data.DataPoints = append(data.DataPoints, point)
			all[i].Data = data
		}
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: scope}, Metrics: all}}, nil
}

// histograms returns the histograms of stats, one for all routes.
func (p *producer) histograms(stats *ws.Stats, now time.Time) []metricdata.Metrics {
	var all []metricdata.Metrics
	for h := range stats.Histograms() {
		if n := len(all); n == 0 || all[n-1].Name != prefix+h.Name {
			all = append(all, metricdata.Metrics{Name: prefix + h.Name, Description: h.Help, Unit: unitOf(h.Name)})
		}
		last := &all[len(all)-1]
		data, ok := last.Data.(metricdata.Histogram[float64])
		if !ok {
			data.Temporality = metricdata.CumulativeTemporality
		}
		point := metricdata.HistogramDataPoint[float64]{
			StartTime: p.start, Time: now, Count: h.Count(), Sum: h.Sum, Bounds: h.Bounds, BucketCounts: h.Counts,
		}
		if h.Event != "" {
			point.Attributes = attribute.NewSet(attribute.String("route", h.Event))
		}
		data.DataPoints = append(data.DataPoints, point)
		last.Data = data
	}
	return all
}

// prefix begins the name of each metric.
const prefix = "ws."

// unitOf returns the unit by the name of a figure, in UCUM.
func unitOf(name string) string {
	switch {
	case strings.Contains(name, "bytes"):
		return "By"
	case strings.Contains(name, "seconds"):
		return "s"
	}
	return "1"
}

// newMetrics returns the metric of a figure, without values.
func newMetrics(f *ws.Figure) metricdata.Metrics {
	mt := metricdata.Metrics{Name: prefix + f.Name, Description: f.Help, Unit: unitOf(f.Name)}
	if f.Counter {
		mt.Data = metricdata.Sum[float64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	} else {
		mt.Data = metricdata.Gauge[float64]{}
	}
	return mt
}

func attributes(f *ws.Figure) attribute.Set {
	var kvs []attribute.KeyValue
	if f.Reason != "" {
		kvs = append(kvs, attribute.String("reason", f.Reason))
	}
	if f.Loop >= 0 {
		kvs = append(kvs, attribute.String("loop", strconv.Itoa(f.Loop)))
	}
	return attribute.NewSet(kvs...)
}
