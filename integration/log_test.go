package integration_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// logCounter is a slog.Handler that counts records and the others that they report as suppressed.
// Safe for concurrent use.
type logCounter struct {
	mu         sync.Mutex
	records    map[string]int   // by message, without those that report others
	suppressed map[string]int64 // by message
	stacks     int
	first      time.Time
	last       time.Time
}

func newLogCounter() *logCounter {
	return &logCounter{records: make(map[string]int), suppressed: make(map[string]int64)}
}

func (l *logCounter) Enabled(context.Context, slog.Level) bool { return true }
func (l *logCounter) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logCounter) WithGroup(string) slog.Handler            { return l }

func (l *logCounter) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first.IsZero() {
		l.first = r.Time
	}
	l.last = r.Time
	l.records[r.Message]++
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "suppressed":
			l.suppressed[r.Message] += a.Value.Int64()
			l.records[r.Message]--
		case "stack":
			l.stacks++
		}
		return true
	})
	return nil
}

// Clients that make a handler fail or panic fill no log: the same message comes
// ten times in a second, and how many there were besides.
func TestLogFloods(t *testing.T) {
	const n = 20_000
	messages := map[string]string{
		"fails": "ws: handler failed", "panics": "ws: handler panicked",
		"raw": "ws: panic recovered", "subscriber": "ws: subscriber panicked",
	}
	for event, message := range messages {
		t.Run(event, func(t *testing.T) {
			harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
				log := newLogCounter()
				s := harness.Start(t, mode, func(c *ws.Config) { c.Logger = slog.New(log) })
				require.NoError(t, s.Register("fails", func(*ws.Client, *ws.Message) error { return errors.New("oops") }))
				require.NoError(t, s.Register("panics", func(*ws.Client, *ws.Message) error { panic("oops") }))
				require.NoError(t, s.Register("subscriber", func(c *ws.Client, m *ws.Message) error {
					return c.SendResponse(m.RequestID, 200, "", nil)
				}))
				if event == "raw" {
					s.HandleRaw(func(c *ws.Client, op ws.Opcode, b []byte) {
						_ = c.SendBytes(b)
						panic("oops")
					})
				}
				if event == "subscriber" {
					s.Subscribe(ws.EventMessageReceived, func(ws.Event) { panic("oops") })
				}
				c := s.Dial(w)
				burst := strings.Repeat(harness.Frame(1, harness.Request(event, "1", "")), 100)
				for range n / 100 {
					c.WriteRaw(burst)
					for range 100 {
						c.Next()
					}
				}
				c.Abort()
				s.Stop() // it reports the rest
				log.mu.Lock()
				defer log.mu.Unlock()
				windows := int(log.last.Sub(log.first)/time.Second) + 1
				total := int64(log.records[message]) + log.suppressed[message] + s.EventBus.GetDroppedEventCount()
				assert.EqualValues(t, n, total, "each is logged or counted")
				assert.LessOrEqual(t, log.records[message], 10*(windows+1))
				assert.LessOrEqual(t, log.stacks, 10*(windows+1))
			})
		})
	}
}

// panickingLog is a slog.Handler with a fault.
type panickingLog struct{ calls sync.Map } // *atomic.Int64 by message

func (l *panickingLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *panickingLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *panickingLog) WithGroup(string) slog.Handler            { return l }

func (l *panickingLog) Handle(_ context.Context, r slog.Record) error {
	n, _ := l.calls.LoadOrStore(r.Message, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	panic("the log handler panics")
}

// await waits until a message was logged n times.
func (l *panickingLog) await(t *testing.T, n int64, message string) {
	t.Helper()
	harness.Eventually(t, func() bool {
		calls, ok := l.calls.Load(message)
		return ok && calls.(*atomic.Int64).Load() >= n
	}, "%q was not logged", message)
}

// A log handler that panics hurts nobody, wherever the library logs: on a loop,
// on a worker, on the event bus, in a timer.
func TestLogHandlerPanics(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		log := new(panickingLog)
		s := harness.Start(t, mode, func(c *ws.Config) { c.Logger = slog.New(log) })
		require.NoError(t, s.Register("fails", func(*ws.Client, *ws.Message) error { return errors.New("oops") }))
		require.NoError(t, s.Register("panics", func(*ws.Client, *ws.Message) error { panic("oops") }))
		late := make(chan struct{})
		require.NoError(t, s.Register("late", func(c *ws.Client, m *ws.Message) error {
			<-late
			return c.SendResponse(m.RequestID, 200, "", nil)
		}, ws.LogAfter(time.Millisecond)))
		s.Subscribe(ws.EventMessageReceived, func(ws.Event) { panic("oops") })
		c := s.Dial(w)
		for range 3 {
			c.Send(harness.Request("fails", "1", ""))
			c.ExpectReply("1", 500, "internal error")
			c.Send(harness.Request("panics", "2", ""))
			c.ExpectReply("2", 500, "internal error")
		}
		log.await(t, 3, "ws: handler failed")
		log.await(t, 3, "ws: handler panicked")
		log.await(t, 6, "ws: subscriber panicked")
		c.Send(harness.Request("late", "3", ""))
		log.await(t, 1, "ws: handler is late, with its stack")
		close(late)
		c.ExpectReply("3", 200, "")
		s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { panic("oops") })
		c.Send("x")
		log.await(t, 1, "ws: panic recovered")
		s.HandleRaw(nil)
		c.Send(harness.Request("fails", "4", ""))
		c.ExpectReply("4", 500, "internal error")
	})
}

// The stack in a log line has the function that panicked.
func TestLogStacks(t *testing.T) {
	var log harness.Buffer
	s := harness.Start(t, func(c *ws.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Authenticate = authenticatePanicking
	})
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	resp, _ := c.ReadResponse()
	require.Equal(t, 500, resp.StatusCode)
	harness.Eventually(t, func() bool { return strings.Contains(log.String(), "authenticatePanicking") }, "not in the log")
}

//go:noinline
func authenticatePanicking(*http.Request) ([]ws.ClientOption, error) { panic("oops") }

// A connect and a disconnect are logged at the level debug, and cost no memory if that is not enabled.
func TestLogOfConnections(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		log := new(harness.Buffer)
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery),
			ws.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
		c := s.Dial(w, "id=me", "user=7")
		address := c.LocalAddr().String()
		c.Finish(4321)
		s.Stop()
		assert.True(t, harness.ContainsLine(log.String(), "level=DEBUG", `msg="ws: client connected"`,
			"client=me", "user=7", "remote="+address), log.String())
		assert.True(t, harness.ContainsLine(log.String(), "level=DEBUG", `msg="ws: client disconnected"`,
			"client=me", "user=7", "code=4321"), log.String())
	})
}
