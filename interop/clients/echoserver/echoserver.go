// Package echoserver has the echo servers for the tests with real clients: on both paths,
// plain and over TLS, with and without compression. Rows lists them all.
package echoserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
)

// Compression is a server's use of permessage-deflate.
type Compression string

// The ways of using permessage-deflate.
const (
	Off      Compression = ""
	Deflate  Compression = "deflate"  // no context takeover
	Takeover Compression = "takeover" // with context takeover
)

// Row is one kind of server. Immutable after New.
type Row struct {
	TLS         bool
	NetHTTP     bool // HandleUpgrade behind net/http; else the native path
	Compression Compression
}

// Rows returns every kind of server.
func Rows() []Row {
	var rows []Row
	for _, secure := range []bool{false, true} {
		for _, netHTTP := range []bool{false, true} {
			for _, compression := range []Compression{Off, Deflate, Takeover} {
				rows = append(rows, Row{TLS: secure, NetHTTP: netHTTP, Compression: compression})
			}
		}
	}
	return rows
}

// String returns a name such as "wss net/http deflate".
func (r Row) String() string {
	name := "ws"
	if r.TLS {
		name = "wss"
	}
	if r.NetHTTP {
		name += " net/http"
	} else {
		name += " native"
	}
	if r.Compression != Off {
		name += " " + string(r.Compression)
	}
	return name
}

// The subprotocols that a server speaks, in its order of preference.
const (
	ProtocolV2 = "echo.v2"
	ProtocolV1 = "echo.v1"
)

// MessageSizeLimit bounds the messages that a server echoes.
const MessageSizeLimit = 4 << 20

// Server is a running echo server on a port of its own. It echoes messages, except for these texts:
//   - "close 4001 reason": it closes with that code and reason.
//   - "sleep 2s": it echoes this after that time, and handles no other message of the client meanwhile.
//   - "subprotocol": it answers with the negotiated subprotocol.
//
// It refuses pages of evil.example with 403, and requests with ?deny with 401. Safe for concurrent use.
type Server struct {
	Row     Row
	URL     string                // of the WebSocket
	Closed  <-chan *ws.CloseError // one for each connection that ended; at most 1,024 wait
	manager *ws.Manager
	web     *http.Server // nil on the native path
	ran     chan error
}

// Start runs a server of the kind row. identity is needed for TLS only. more changes its options. Close it.
func Start(row Row, identity *Identity, more ...ws.Option) (*Server, error) {
	opts := []ws.Option{
		ws.WithLoops(1),
		ws.WithMessageSizeLimit(MessageSizeLimit),
		ws.WithQueueBytes(4 * MessageSizeLimit),
		ws.WithSubprotocols(ProtocolV2, ProtocolV1),
		ws.WithCheckOrigin(func(r *http.Request) bool {
			return !strings.Contains(r.Header.Get("Origin"), "evil.example")
		}),
		ws.WithAuthenticate(authenticate),
	}
	if !row.NetHTTP {
		opts = append(opts, ws.WithListenAddr("tcp://127.0.0.1:0"))
	}
	if row.Compression != Off {
		opts = append(opts, ws.WithCompression(ws.CompressionConfig{
			Threshold: 1, ContextTakeover: row.Compression == Takeover,
			MaxRatio: -1, // the tests repeat a few words for a MiB
		}))
	}
	if row.TLS && !row.NetHTTP {
		opts = append(opts, ws.WithTLSConfig(identity.Config()))
	}
	m, err := ws.NewManager(append(opts, more...)...)
	if err != nil {
		return nil, err
	}
	closed := make(chan *ws.CloseError, 1024)
	m.HandleRaw(echo)
	m.Subscribe(ws.EventClientDisconnected, func(e ws.Event) {
		if end, ok := e.Data.(*ws.CloseError); ok && len(closed) < cap(closed) {
			closed <- end
		}
	})
	s := &Server{Row: row, Closed: closed, manager: m, ran: make(chan error, 1)}
	go func() { s.ran <- m.Run() }() // Close ends it and waits
	if err := s.listen(identity); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// authenticate adds header lines to the answer, and refuses requests with ?deny.
func authenticate(r *http.Request) ([]ws.ClientOption, error) {
	if r.URL.Query().Has("deny") {
		return nil, errors.New("asked for it")
	}
	return []ws.ClientOption{ws.WithResponseHeader(http.Header{
		"Set-Cookie": {"first=1; Path=/", "second=2"}, "X-Echo": {"yes"},
	})}, nil
}

// maxSleep bounds the time of a "sleep".
const maxSleep = 10 * time.Second

// echo answers one message. It runs on a worker and waits for space in the client's queue, so
// a client that reads slowly loses no answer. payload is borrowed.
func echo(c *ws.Client, op ws.Opcode, payload []byte) {
	var err error
	if op == ws.OpBinary {
		err = c.SendContext(c.Context(), payload, ws.Binary())
	} else if rest, ok := strings.CutPrefix(string(payload), "close "); ok {
		number, reason, _ := strings.Cut(rest, " ")
		code, _ := strconv.Atoi(number)
		c.CloseWithCode(code, reason)
	} else if rest, ok := strings.CutPrefix(string(payload), "sleep "); ok {
		d, _ := time.ParseDuration(rest)
		<-time.After(min(d, maxSleep))
		err = c.SendContext(c.Context(), payload)
	} else if string(payload) == "subprotocol" {
		err = c.SendContext(c.Context(), []byte(c.Subprotocol()))
	} else {
		err = c.SendContext(c.Context(), payload)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
		slog.Error("echo", slog.Any("error", err))
	}
}

// listen sets the URL of the native path, or starts the http.Server.
func (s *Server) listen(identity *Identity) error {
	scheme := "ws"
	if s.Row.TLS {
		scheme = "wss"
	}
	if !s.Row.NetHTTP {
		addr := s.manager.Addr()
		if addr == nil {
			return errors.New("echoserver: the manager does not listen")
		}
		s.URL = fmt.Sprintf("%s://%s/ws", scheme, addr)
		return nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.URL = fmt.Sprintf("%s://%s/ws", scheme, listener.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		_ = s.manager.HandleUpgrade(w, r) // the client has its answer; the tests provoke refusals
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { // for browsers
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>echo</title><link rel=icon href='data:,'>"))
	})
	s.web = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	if s.Row.TLS {
		listener = tls.NewListener(listener, identity.Config())
	}
	go func() { _ = s.web.Serve(listener) }() // Close ends it
	return nil
}

// Close stops the server and waits for its end.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if s.web != nil {
		err = s.web.Close()
	}
	err = errors.Join(err, s.manager.Shutdown(ctx))
	select {
	case ran := <-s.ran:
		return errors.Join(err, ran)
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}
