// Command prices shows what a slow client gets: one feed of made-up prices in three rooms, with
// ConflateKey, with a TTL, and with a history. See README.md.
//
//	go run ./examples/prices
//
// Then open http://localhost:8080 and slow the page's connections down.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/qi-realtime/ws"
)

//go:embed static
var static embed.FS

// shutdownTimeout is the time in which a stopping server flushes the queues of its clients.
const shutdownTimeout = 5 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address of the page; :8080 is for other machines, too")
	rate := flag.Int("rate", 200, "prices a second, of all symbols together")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *addr, *rate, func(page string) { slog.Info("prices listens", "page", page) })
	if err != nil {
		slog.Error("prices ended", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or a listener fails. It calls ready with the page's URL.
func run(ctx context.Context, addr string, rate int, ready func(page string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "prices")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, f, err := newManager(filepath.Join(dir, "ws"), window)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(m, f), ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 2)
	go func() { failed <- m.Run() }()
	go func() { failed <- server.Serve(listener) }()
	if m.Addr() != nil { // Addr waits for Run, and is nil if that has failed
		go f.publish(ctx, rate)
		ready("http://" + listener.Addr().String())
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	limit, release := context.WithTimeout(context.Background(), shutdownTimeout)
	defer release()
	return errors.Join(err, server.Shutdown(limit), m.Shutdown(limit))
}

// newManager returns a manager with all handlers. The server ends of the slow links come to a Unix
// socket with a small buffer: about 2 KB wait in the kernel, where nothing acts on a message, and
// all others in the queue of their client, where ConflateKey, TTL and CatchUp do. Small buffers
// of TCP would not do, because their windows open with delays of 200 ms.
func newManager(socket string, window time.Duration) (*ws.Manager, *feed, error) {
	m, err := ws.NewManager(
		ws.WithListenAddr("unix://"+socket), ws.WithPath("/ws"), ws.WithSocketBuffers(0, 2<<10),
	)
	if err != nil {
		return nil, nil, err
	}
	f, err := newFeed(m, window)
	return m, f, err
}

// routes serves the page, its WebSocket at full speed, and those behind slow links.
func routes(m *ws.Manager, f *feed) http.Handler {
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
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		f.links.serve(w, r, m.Addr())
	})
	return mux
}
