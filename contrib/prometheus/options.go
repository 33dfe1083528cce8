package prometheus

import prom "github.com/prometheus/client_golang/prometheus"

// Option sets a property of a Collector.
type Option func(*options)

// options holds the settings of a Collector.
type options struct {
	labels prom.Labels
	loops  bool
}

// WithName adds the constant label manager with that name to each metric. A process with several
// managers needs it, because a registry refuses two collectors with equal metrics.
func WithName(name string) Option {
	return func(o *options) { o.labels = prom.Labels{"manager": name} }
}

// WithLoops gives each figure of an event loop the label loop, the loop's number from 0, in place of
// the sum of all loops. It costs some 60 series for each loop. Without it only
// ws_loop_busy_seconds_total has that label.
func WithLoops() Option { return func(o *options) { o.loops = true } }
