//go:build linux

package server

import (
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// The server of the commands attack and soak: all settings are the library's defaults,
// except those that an attack concerns.

// countedLog is a logger whose lines are formatted and counted, not printed. Safe
// for concurrent use.
type countedLog struct {
	*slog.Logger
	lines atomic.Uint64
}

func newCountedLog() *countedLog {
	l := new(countedLog)
	l.Logger = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// Write implements io.Writer.
func (l *countedLog) Write(line []byte) (int, error) {
	l.lines.Add(1)
	return len(line), nil
}

// attackedOptions are the options of a server in mode Attack or Soak.
func attackedOptions(cfg *control.Config, log *countedLog) []ws.Option {
	opts := []ws.Option{
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithLoops(cfg.Loops),
		func(c *ws.Config) { c.Logger = log.Logger },
	}
	if cfg.MaxConnections > 0 {
		opts = append(opts, ws.WithMaxConnections(cfg.MaxConnections))
	}
	if cfg.Compress {
		opts = append(opts, ws.WithEnableCompression(true))
	}
	if cfg.Authenticate {
		opts = append(opts, ws.WithAuthenticate(attackedAuthenticate))
	}
	if cfg.HandshakeTimeout > 0 {
		opts = append(opts, func(c *ws.Config) { c.HandshakeTimeout = cfg.HandshakeTimeout })
	}
	if cfg.MessagesPerSecond > 0 {
		opts = append(opts, ws.WithRateLimit(ws.RateLimit{Messages: cfg.MessagesPerSecond}))
	}
	return opts
}

// httpServer serves the path http as an operator should: with a time limit for
// the head of a request.
func (s *server) httpServer(h http.Handler) *http.Server {
	server := &http.Server{Handler: h}
	if s.log != nil {
		server.ReadHeaderTimeout = 10 * time.Second
		server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelError)
	}
	return server
}

// attackedAuthenticate lets everybody in. A query with "stuck" makes it wait for
// ever, one with an ID is a client of this ID, and package client asks for notices.
func attackedAuthenticate(r *http.Request) ([]ws.ClientOption, error) {
	q := r.URL.Query()
	if q.Has("stuck") {
		select {} // a call to a database that has no timeout, and ignores its context
	}
	if id := q.Get("id"); id != "" {
		return []ws.ClientOption{ws.WithClientID(id)}, nil
	}
	if q.Get("notice") == "1" {
		return []ws.ClientOption{ws.WithReconnectNotice()}, nil
	}
	return nil, nil
}

// The handler "work" computes for a while and then waits, as for a database.
const (
	workTime = 250 * time.Microsecond
	workWait = 750 * time.Microsecond
)

var errAttacked = errors.New("bench: this handler always fails")

// attackedRoutes registers the handlers. The healthy clients use "echo" and
// "stream".
func (s *server) attackedRoutes(m *ws.Manager) error {
	type roomHandler = func(*ws.Client, *control.RoomData) (*control.NoopAnswer, error)
	room := func(do func(c *ws.Client, room string) error) roomHandler {
		return func(c *ws.Client, req *control.RoomData) (*control.NoopAnswer, error) {
			return new(control.NoopAnswer), do(c, req.Room)
		}
	}
	answer := func(do func()) func(*ws.Client, *control.NoopData) (*control.NoopAnswer, error) {
		return func(*ws.Client, *control.NoopData) (*control.NoopAnswer, error) {
			do()
			return new(control.NoopAnswer), nil
		}
	}
	return errors.Join(
		ws.Handle(m, "echo", echoData),
		ws.Handle(m, "noop", answer(func() {})),
		ws.Handle(m, "inline", answer(func() {}), ws.RunInline()),
		ws.Handle(m, "work", answer(work)),
		ws.Handle(m, "panic", answer(func() { panic(errAttacked) })),
		ws.Handle(m, "fail", func(*ws.Client, *control.NoopData) (*control.NoopAnswer, error) { return nil, errAttacked }),
		ws.Handle(m, "join", room(func(c *ws.Client, room string) error {
			if err := c.JoinRoom(room); err != nil {
				return ws.NewClientError(http.StatusBadRequest, err.Error())
			}
			return nil
		})),
		ws.Handle(m, "leave", room(func(c *ws.Client, room string) error { c.LeaveRoom(room); return nil })),
		ws.Handle(m, "stream", func(c *ws.Client, _ *control.NoopData) (*control.NoopAnswer, error) {
			client{s, c}.Join(0)
			return new(control.NoopAnswer), nil
		}),
		ws.Handle(m, "items", func(_ *ws.Client, items *[]control.Item) (*control.Count, error) {
			return &control.Count{Items: len(*items)}, nil
		}),
	)
}

// work takes about a millisecond.
func work() {
	for began := time.Now(); time.Since(began) < workTime; {
	}
	<-time.After(workWait)
}
