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
// The names are those of ws.Figure with the prefix "ws.". The attribute "reason" is the reason
// for a drop, refusal or close, and "loop" the index of an event loop.
func NewProducer(m *ws.Manager) metric.Producer { return &producer{manager: m, start: time.Now()} }

// Produce returns the metrics. Safe for concurrent use.
func (p *producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	stats := p.manager.Stats()
	now := time.Now()
	var all []metricdata.Metrics
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

// newMetrics returns the metric of a figure, without values.
func newMetrics(f *ws.Figure) metricdata.Metrics {
	mt := metricdata.Metrics{Name: "ws." + f.Name, Description: f.Help, Unit: "1"}
	switch {
	case strings.Contains(f.Name, "bytes"):
		mt.Unit = "By"
	case strings.Contains(f.Name, "seconds"):
		mt.Unit = "s"
	}
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
