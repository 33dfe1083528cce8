// Command inspected runs a server under a small load of every kind, and the pages of package
// inspect, for the test of these pages in a browser. It prints one line of JSON when the pages can
// be loaded, begins a drain with the first line of its standard input, and ends with it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/inspect"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address of the pages")
	flag.Parse()
	if err := run(*addr); err != nil {
		slog.Error("inspected", slog.Any("error", err))
		os.Exit(1)
	}
}

func run(addr string) error {
	m, err := ws.NewManager(
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithWriteTimeout(0),
		ws.WithHeartbeatInterval(time.Second), ws.WithHeartbeatTimeout(time.Hour),
		ws.WithMessageQueueSize(64), ws.WithQueueBytes(256<<10), ws.WithUnsentBytes(16<<10),
		ws.WithSubprotocols("feed.v2"), ws.WithCompression(ws.CompressionConfig{}),
		ws.WithAuthenticate(authenticate), ws.WithLogger(slog.New(slog.DiscardHandler)),
	)
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // ends with Shutdown below
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: pages(m), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with Close below
	load := startLoad(m)
	url := "http://" + l.Addr().String() + "/"
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": url}); err != nil {
		return err
	}
	if lines := bufio.NewScanner(os.Stdin); lines.Scan() { // any line begins a drain that does not end
		go func() { _ = m.Drain(context.Background(), ws.DrainConfig{Grace: time.Hour}) }() // ends with Shutdown
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	load.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = m.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // the stalled clients do not answer
		err = nil
	}
	return errors.Join(err, server.Close(), <-ran)
}

// pages serves one page that may close clients, and one that may not.
func pages(m *ws.Manager) http.Handler {
	name := func(c *ws.Client) any {
		name, _ := c.GetMetadata("name")
		return map[string]any{"name": name}
	}
	mux := http.NewServeMux()
	mux.Handle("/", inspect.Handler(m, inspect.AllowClose(), inspect.Metadata(name)))
	mux.Handle("/readonly/", http.StripPrefix("/readonly", inspect.Handler(m)))
	return mux
}

// authenticate takes the user and the rooms from the query.
func authenticate(r *http.Request) ([]ws.ClientOption, error) {
	query := r.URL.Query()
	if query.Get("user") == "" {
		return nil, errors.New("no user")
	}
	opts := []ws.ClientOption{
		ws.WithUser(query.Get("user")), ws.WithMetadata("name", "User "+query.Get("user")),
		ws.WithRooms(strings.Split(query.Get("rooms"), ",")...),
	}
	if id := query.Get("id"); id != "" {
		opts = append(opts, ws.WithClientID(id))
	}
	return opts, nil
}
