// Command service is a WebSocket service as it runs in production; see README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/qi-realtime/ws"
	wsprometheus "github.com/qi-realtime/ws/contrib/prometheus"
	"github.com/qi-realtime/ws/inspect"
)

// The environment has the defaults of the flags: WS_KEY_FILE is the default of -key-file.
var (
	listen      = flag.String("listen", ":8080", "address of clients and health checks")
	private     = flag.String("private", "127.0.0.1:9090", "address of metrics and inspection")
	keyFile     = flag.String("key-file", "", "file whose bytes, 32 or more, sign the tokens")
	connections = flag.Int("connections", 100_000, "most clients at once")
	perSecond   = flag.Float64("per-second", 1000, "new clients in a second")
	lifetime    = flag.Duration("lifetime", time.Hour, "longest life of a connection, but for a random tenth")
	grace       = flag.Duration("grace", 5*time.Second, "drain: time for load balancers to read /readyz")
	window      = flag.Duration("window", time.Minute, "drain: time over which the clients are moved")
	settle      = flag.Duration("settle", 5*time.Second, "drain: time that a client has to move by itself")
	user        = flag.String("sign", "", "print a token of this user that is valid for a day, and end")
)

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil))) // the library logs there, too
	flag.VisitAll(func(f *flag.Flag) {
		name := "WS_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok && f.Value.Set(value) != nil {
			log.Fatalf("%s=%q is no value for -%s", name, value, f.Name)
		}
	})
	flag.Parse()
	if err := run(); err != nil {
		slog.Error("service ended", "error", err)
		os.Exit(1)
	}
}

func run() error {
	k, err := os.ReadFile(*keyFile)
	if err != nil || len(k) < 32 {
		return errors.Join(err, errors.New("-key-file must have 32 bytes or more"))
	}
	if *user != "" {
		fmt.Println(key(k).sign(*user, time.Now().Add(24*time.Hour)))
		return nil
	}
	m, err := ws.NewManager(
		ws.WithListenAddr(*listen), ws.WithMaxConnections(*connections),
		ws.WithAdmission(ws.Admission{PerSecond: *perSecond}), ws.WithMaxLifetime(*lifetime, *lifetime/10),
		ws.WithMessageSizeLimit(16<<10), ws.WithRateLimit(ws.RateLimit{Messages: 50}),
		ws.WithSubprotocols("rooms.v2", "rooms.v1"), ws.WithAuthenticate(key(k).authenticate),
	)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *private)
	if err = errors.Join(err, register(m)); err != nil {
		return err
	}
	server := &http.Server{Handler: operations(m), ReadHeaderTimeout: 10 * time.Second}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	ended := make(chan error, 2)
	go func() { ended <- m.Run() }()
	go func() { ended <- server.Serve(listener) }()
	if addr := m.Addr(); addr != nil { // Addr waits for Run, and is nil if that has failed
		slog.Info("service listens", "clients", addr.String(), "private", listener.Addr().String())
		report("READY=1")
	}
	select {
	case err := <-ended:
		return err
	case <-signals:
		report("STOPPING=1")
		return stop(m, signals)
	}
}

// stop moves the clients to other servers and shuts down. A second signal cuts it short.
func stop(m *ws.Manager, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), *grace+*window+*settle+10*time.Second)
	defer cancel()
	go func() { <-signals; cancel() }()
	err := m.Drain(ctx, ws.DrainConfig{Grace: *grace, Window: *window, Settle: *settle})
	slog.Info("service drained", "stats", m.DrainStats(), "refused", m.Stats().Refused, "error", err)
	return m.Shutdown(ctx)
}

// operations serves the private address. It asks for no password, so keep it from clients.
func operations(m *ws.Manager) http.Handler {
	prometheus.MustRegister(wsprometheus.NewCollector(m)) // beside those of Go and of the process
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.Handler())
	mux.Handle("/inspect/", http.StripPrefix("/inspect", inspect.Handler(m)))
	return mux
}

// report reports a state to systemd, if the service is a unit of Type=notify.
func report(state string) {
	if conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
		_, _ = conn.Write([]byte(state))
		_ = conn.Close()
	}
}

type message struct {
	User string `json:"user"` // the server sets it
	Room string `json:"room"`
	Text string `json:"text"`
}

// register registers the handlers. The answer of "say" is the number of members that it reaches.
func register(m *ws.Manager) error {
	return errors.Join(
		ws.Handle0(m, "join", func(c *ws.Client, room *string) error { return c.JoinRoom(*room) }),
		ws.Handle(m, "say", func(c *ws.Client, req *message) (*int, error) {
			req.User = c.User()
			data, _ := json.Marshal(req) // strings always encode
			text, _ := json.Marshal(ws.Message{Type: ws.TypeNotify, Event: "said", Data: data})
			d, err := m.Publish(req.Room, text)
			err = errors.Join(err, d.Wait(c.Context()))
			return new(d.Queued()), err
		}),
	)
}
