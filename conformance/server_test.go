package conformance_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// patience is the time that a test waits before it fails.
const patience = time.Minute

// way is one of the two ways in which a connection reaches an event loop.
type way string

const (
	native  way = "native"   // the loop accepted it
	overNet way = "net/http" // HandleUpgrade handed it over
)

var bothWays = [...]way{native, overNet}

// maxMessage is the limit of a message unless a test sets another.
const maxMessage = 17 << 20

// closePlease before a code makes the server close with the code.
const closePlease = "please close with "

// server is a running manager that echoes, with its counts.
type server struct {
	*ws.Manager
	web     *httptest.Server
	invalid atomic.Int64 // Metrics.IncrementInvalidMessages
	errors  atomic.Int64 // EventError
	handled atomic.Int64 // messages that reached the handler
	log     complaints
}

// counting is the metrics of a server.
type counting struct {
	ws.NoopMetrics
	s *server
}

func (c counting) IncrementInvalidMessages() { c.s.invalid.Add(1) }

// complaints is the log of a server. It must stay empty, because a panic would be in it.
type complaints struct {
	mu    sync.Mutex
	lines []string
}

// Write takes one record of the log.
func (c *complaints) Write(line []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, string(line))
	return len(line), nil
}

// all returns the whole log.
func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// start runs a server until the test ends, and then checks that it has logged nothing.
func start(t testing.TB, opts ...ws.Option) *server {
	t.Helper()
	s := new(server)
	m, err := ws.NewManager(append([]ws.Option{func(c *ws.Config) {
		c.ListenAddr = "tcp://127.0.0.1:0"
		c.Loops = 2
		c.HeartbeatInterval = 1000 * time.Hour // no ping comes between the expected frames
		c.HeartbeatTimeout = 2000 * time.Hour
		c.CloseTimeout = patience
		c.MessageSizeLimit = maxMessage
		c.MessageQueueSize = 1 << 16
		c.QueueBytes = 4 * maxMessage
		c.HandlerMode = ws.Inline
		c.LoopStallThreshold = 0 // a machine under load would log its pauses
		c.Metrics = counting{s: s}
		c.Logger = slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}}, opts...)...)
	require.NoError(t, err)
	s.Manager = m
	m.HandleRaw(s.echo)
	m.Subscribe(ws.EventError, func(ws.Event) { s.errors.Add(1) })
	s.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = m.HandleUpgrade(w, r) // it has answered
	}))
	s.web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // ends with Shutdown
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.web.Close()
		require.NoError(t, m.Shutdown(ctx))
		require.NoError(t, <-ran)
		assert.Empty(t, s.log.all(), "the server has logged something")
	})
	m.Addr() // waits for the start
	return s
}

// echo sends messages back, or closes on request.
func (s *server) echo(c *ws.Client, op ws.Opcode, payload []byte) {
	s.handled.Add(1)
	if code, ok := strings.CutPrefix(string(payload[:min(len(payload), 32)]), closePlease); ok {
		n, _ := strconv.Atoi(code)
		c.CloseWithCode(n, "as you wish")
		return
	}
	if op == ws.OpBinary {
		_ = c.SendBinary(payload)
		return
	}
	_ = c.SendBytes(payload)
}

// addr returns the TCP address of one way.
func (s *server) addr(w way) string {
	if w == native {
		return s.Addr().String()
	}
	return s.web.Listener.Addr().String()
}

// eventually waits until the condition holds.
func eventually(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			require.Failf(t, "the condition never held", format, args...)
		}
	}
}
