// Command chat is a complete chat service: rooms with history, names that are present, notices of
// typing, and a page that misses no message.
//
//	go run ./examples/chat
//
// Then open http://localhost:8080 in two tabs. One manager serves two paths into the same rooms:
// through net/http (-addr), beside the page, and natively (-native), where the event loops
// accept the connections of other clients themselves.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/qi-realtime/ws"
)

// static is the page, built from web.
//
//go:embed static
var static embed.FS

// shutdownTimeout is the time in which a stopping server flushes the queues of its clients.
const shutdownTimeout = 10 * time.Second

// policy lets the page load its own files alone, and connect to its own server.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// addresses are those on which the service listens. An empty native address turns its path off.
type addresses struct{ page, native string }

func main() {
	var listen addresses
	var o options
	flag.StringVar(&listen.page, "addr", ":8080", "address of the page and of WebSocket through net/http")
	flag.StringVar(&listen.native, "native", ":8081", "address of native WebSocket; empty turns it off")
	flag.IntVar(&o.history, "history", 200, "messages that a room keeps")
	flag.Float64Var(&o.rate, "rate", 5, "messages of one client that are accepted in a second; 0 is no limit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, listen, o, nil); err != nil {
		slog.Error("chat ended", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or a listener fails. When both listen, it sends their addresses to
// ready, if that is not nil.
func run(ctx context.Context, listen addresses, o options, ready chan<- addresses) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var opts []ws.Option
	if listen.native != "" {
		opts = append(opts, ws.WithListenAddr(listen.native), ws.WithPath("/ws"))
	}
	c, err := newChat(o, opts...)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen.page)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(c.m), ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 2)
	go func() { failed <- c.m.Run() }()
	go func() { failed <- server.Serve(listener) }()
	go c.presence.run(ctx)
	at := addresses{page: listener.Addr().String()}
	if addr := c.m.Addr(); addr != nil { // Addr waits for Run
		at.native = addr.String()
	}
	slog.Info("chat listens", "page", pageURL(listener), "native", at.native)
	if ready != nil {
		ready <- at
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	limit, release := context.WithTimeout(context.Background(), shutdownTimeout)
	defer release()
	return errors.Join(err, server.Shutdown(limit), c.m.Shutdown(limit))
}

// pageURL returns the address of the page for a browser on this machine.
func pageURL(l net.Listener) string {
	addr := l.Addr().(*net.TCPAddr)
	if addr.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", addr.Port)
	}
	return "http://" + addr.String()
}

// routes serves the page, and WebSocket through net/http.
func routes(m *ws.Manager) http.Handler {
	page, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	files := http.FileServerFS(page)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		files.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if err := m.HandleUpgrade(w, r); err != nil { // HandleUpgrade has answered the request
			slog.Debug("upgrade", "remote", r.RemoteAddr, "err", err)
		}
	})
	return mux
}
