// Command chat is a complete chat service: a page, rooms, the members present, and live counts.
//
//	go run ./examples/chat
//
// Then open http://localhost:8080 in two tabs. One manager serves two paths into the same rooms:
// through net/http (-addr), beside the page, and natively (-native), where the event loops
// accept the connections themselves.
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
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/qi-realtime/ws"
)

//go:embed static
var static embed.FS

// shutdownTimeout is the time in which a stopping server flushes the queues of its clients.
const shutdownTimeout = 10 * time.Second

func main() {
	addr := flag.String("addr", ":8080", "address of the page and of WebSocket through net/http")
	native := flag.String("native", ":8081", "address of native WebSocket; empty turns it off")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *native, nil); err != nil {
		slog.Error("chat ended", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or a listener fails. When both listen, it sends the page's address
// to ready, if that is not nil.
func run(ctx context.Context, addr, native string, ready chan<- string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := []ws.Option{ws.WithCheckOrigin(sameHost)}
	if native != "" {
		opts = append(opts, ws.WithListenAddr(native), ws.WithPath("/ws"))
	}
	m, err := ws.NewManager(opts...)
	if err != nil {
		return err
	}
	c, err := newChat(m)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(m), ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 2)
	go func() { failed <- m.Run() }()
	go func() { failed <- server.Serve(listener) }()
	go c.publish(ctx)
	slog.Info("chat listens", "page", pageURL(listener), "native", m.Addr()) // Addr waits for Run
	if ready != nil {
		ready <- listener.Addr().String()
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	limit, release := context.WithTimeout(context.Background(), shutdownTimeout)
	defer release()
	return errors.Join(err, server.Shutdown(limit), m.Shutdown(limit))
}

// pageURL returns the address of the page for a browser on this machine.
func pageURL(l net.Listener) string {
	addr := l.Addr().(*net.TCPAddr)
	if addr.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", addr.Port)
	}
	return "http://" + addr.String()
}

// routes serves the page, WebSocket through net/http, and the port of the native path for the page.
func routes(m *ws.Manager) http.Handler {
	page, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		if err := m.HandleUpgrade(w, r); err != nil { // HandleUpgrade has answered the request
			slog.Debug("upgrade", "remote", r.RemoteAddr, "err", err)
		}
	})
	mux.HandleFunc("GET /config.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"native_port":%q}`, nativePort(m))
	})
	return mux
}

// nativePort returns the port of the native path, or "" without one.
func nativePort(m *ws.Manager) string {
	addr := m.Addr()
	if addr == nil {
		return ""
	}
	_, port, _ := net.SplitHostPort(addr.String())
	return port
}

// sameHost accepts pages of this host from any port, because the page's port differs from the
// native path's. Clients that are no browsers send no Origin.
func sameHost(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	host := url.URL{Host: r.Host}
	return err == nil && u.Host != "" && strings.EqualFold(u.Hostname(), host.Hostname())
}
