// Package prometheus exports the figures and histograms of a ws.Manager to Prometheus.
//
//	registry.MustRegister(prometheus.NewCollector(m))
//
// The collector reads Manager.Stats at each scrape and keeps nothing between two, so
// nothing of Prometheus runs on the way of a message. README.md lists the metrics.
package prometheus

import (
	"strconv"
	"strings"

	prom "github.com/prometheus/client_golang/prometheus"

	"github.com/qi-realtime/ws"
)

// Collector collects the metrics of one Manager. It may be registered before Manager.Run, and
// collects during and after Shutdown, too. Safe for concurrent use.
type Collector struct {
	manager *ws.Manager
	metrics map[string]*metric // by the names in Stats
}

// metric is one metric of the collector. Immutable.
type metric struct {
	desc   *prom.Desc
	kind   prom.ValueType // of a Figure
	byLoop bool           // one value for each event loop, not their sum
}

// NewCollector returns a collector for m. Register it with a registry of your own or with
// the default one; it registers nothing itself.
func NewCollector(m *ws.Manager, opts ...Option) *Collector {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := &Collector{manager: m, metrics: make(map[string]*metric)}
	one := ws.Stats{Loops: make([]ws.LoopStats, 1), Routes: make([]ws.RouteStats, 1)}
	for f := range one.Figures() {
		if c.metrics[f.Name] == nil {
			c.metrics[f.Name] = newMetric(f, &o)
		}
	}
	for h := range one.Histograms() {
		var labels []string
		if strings.HasPrefix(h.Name, "handler_") {
			labels = []string{"route"}
		}
		c.metrics[h.Name] = &metric{desc: prom.NewDesc(nameOf(h.Name), helpOf(h.Help), labels, o.labels)}
	}
	return c
}

func newMetric(f ws.Figure, o *options) *metric {
	x := &metric{kind: prom.GaugeValue}
	if f.Counter {
		x.kind = prom.CounterValue
	}
	var labels []string
	if f.Reason != "" {
		labels = append(labels, reasonLabel(f.Name))
	}
	if f.Loop >= 0 && (o.loops || strings.HasPrefix(f.Name, busy)) {
		x.byLoop = true
		labels = append(labels, "loop")
	}
	x.desc = prom.NewDesc(nameOf(f.Name), helpOf(f.Help), labels, o.labels)
	return x
}

// busy is the prefix of the figure that is of use only for each loop.
const busy = "loop_busy_"

// reasonLabel returns the label for the reasons of a figure.
func reasonLabel(figure string) string {
	if strings.HasSuffix(figure, "closes_total") {
		return "code"
	}
	return "reason"
}

// names are the names of metrics that Stats names shorter, or by its fields. The others have
// the names of Stats.
var names = map[string]string{
	"stuck":                   "stuck_calls",
	"refused_total":           "refused_handshakes_total",
	"loop_opened_total":       "opened_connections_total",
	"loop_closed_total":       "closed_connections_total",
	"loop_messages_in_total":  "received_messages_total",
	"loop_messages_out_total": "sent_messages_total",
	"loop_bytes_in_total":     "received_bytes_total",
	"loop_bytes_out_total":    "sent_bytes_total",
	"loop_batched_total":      "batched_writes_total",
	"loop_blocked_total":      "full_sockets_total",
	"loop_blocked":            "blocked_connections",
	"loop_slow":               "slow_connections",
	"loop_paused":             "paused_connections",
	"loop_budget_paused":      "budget_paused_connections",
	"loop_paused_total":       "pauses_total",
	"loop_inbox_len":          "inbox_tasks",
	"loop_drops_total":        "dropped_messages_total",
	"gaps_total":              "room_gaps_total",
	"replayed_total":          "replayed_messages_total",
	"rate_limited_total":      "rate_limited_messages_total",
	"unhandled_total":         "unhandled_messages_total",
	"late_handlers_total":     "late_handler_calls_total",
}

// nameOf returns the name of the metric for a name of Stats.
func nameOf(name string) string {
	if other, ok := names[name]; ok {
		name = other
	}
	if !strings.HasPrefix(name, busy) {
		name = strings.TrimPrefix(name, "loop_")
	}
	return "ws_" + name
}

// helpOf returns a comment of Stats as a sentence.
func helpOf(comment string) string { return strings.ToUpper(comment[:1]) + comment[1:] + "." }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prom.Desc) {
	for _, x := range c.metrics {
		ch <- x.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prom.Metric) {
	st := c.manager.Stats()
	for f, value := range st.Figures() {
		if x := c.metrics[f.Name]; x.byLoop {
			ch <- x.figure(f, value)
		}
	}
	sum := st
	sum.Loops = []ws.LoopStats{st.Total}
	for f, value := range sum.Figures() {
		if x := c.metrics[f.Name]; !x.byLoop {
			ch <- x.figure(f, value)
		}
	}
	for h := range st.Histograms() {
		ch <- c.metrics[h.Name].histogram(&h)
	}
}

func (x *metric) figure(f ws.Figure, value float64) prom.Metric {
	var labels []string
	if f.Reason != "" {
		labels = append(labels, f.Reason)
	}
	if x.byLoop {
		labels = append(labels, strconv.Itoa(f.Loop))
	}
	return prom.MustNewConstMetric(x.desc, x.kind, value, labels...)
}

func (x *metric) histogram(h *ws.Histogram) prom.Metric {
	var labels []string
	if h.Event != "" {
		labels = []string{h.Event}
	}
	buckets := make(map[float64]uint64, len(h.Bounds))
	below := uint64(0)
	for i, bound := range h.Bounds {
		below += h.Counts[i]
		buckets[bound] = below
	}
	return prom.MustNewConstHistogram(x.desc, h.Count(), h.Sum, buckets, labels...)
}
