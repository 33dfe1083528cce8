package prometheus_test

import (
	"net/http"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/prometheus"
)

func ExampleNewCollector() {
	m, err := ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"))
	if err != nil {
		panic(err)
	}
	registry := prom.NewRegistry()
	registry.MustRegister(prometheus.NewCollector(m))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	// Serve /metrics on a private port, and call m.Run.
	// Output:
}
