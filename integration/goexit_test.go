package integration_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
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

// logBuffer collects a log. Safe for concurrent use.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// exitingMetrics ends the loop's goroutine when a client disconnects.
type exitingMetrics struct{ ws.NoopMetrics }

func (exitingMetrics) DecrementConnections() { runtime.Goexit() }

// runtime.Goexit on an event loop, which nothing can stop, ends the engine in order: Run
// says why, all connections end, and Shutdown does not wait.
func TestGoexitOnLoop(t *testing.T) {
	exit := map[string]func(*harness.Server, *harness.Client){
		"handler": func(_ *harness.Server, c *harness.Client) { c.Send(harness.Request("exit", "1", "")) },
		"raw": func(s *harness.Server, c *harness.Client) {
			s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { runtime.Goexit() })
			c.Send("x")
		},
		"metrics": func(_ *harness.Server, c *harness.Client) { c.Abort() },
	}
	for name, exit := range exit {
		for _, loops := range []int{1, 3} {
			t.Run(name+", "+strconv.Itoa(loops)+" loops", func(t *testing.T) {
				harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
					log := &logBuffer{}
					opts := []ws.Option{
						ws.WithLoops(loops), ws.WithHandlerMode(ws.Inline),
						func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) },
					}
					if w == harness.Native {
						opts = append(opts, ws.WithListenAddr("tcp://127.0.0.1:0"))
					} else {
						opts = append(opts, ws.WithListenAddr(""))
					}
					if name == "metrics" {
						opts = append(opts, ws.WithMetrics(exitingMetrics{}))
					}
					s := harness.Start(t, opts...)
					s.Abandon() // Run fails
					defer s.Web.Close()
					exitLoop := func(*ws.Client, *struct{}) error { runtime.Goexit(); return nil }
					require.NoError(t, ws.Handle0(s.Manager, "exit", exitLoop))
					var others []*harness.Client
					for range 5 {
						others = append(others, s.Dial(w))
					}
					exit(s, s.Dial(w))
					err := harness.Receive(t, s.Ran, "Run did not return")
					require.ErrorContains(t, err, "runtime.Goexit")
					for _, c := range others {
						_, err := io.Copy(io.Discard, c.R)
						assert.False(t, isTimeout(err), "a connection is open")
					}
					harness.Shutdown(t, s.Manager)
					assert.Contains(t, log.String(), "runtime.Goexit")
					assert.Contains(t, log.String(), "goexit_test.go", "the stack is missing")
				})
			})
		}
	}
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// The same without sockets.
func TestGoexitOnMemory(t *testing.T) {
	mem := ws.NewSimnet()
	m, err := ws.NewManager(ws.WithHandlerMode(ws.Inline), ws.WithLoops(3), func(c *ws.Config) {
		c.Simnet, c.Logger = mem, slog.New(slog.DiscardHandler)
	})
	require.NoError(t, err)
	m.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { runtime.Goexit() })
	run := make(chan error, 1)
	go func() { run <- m.Run() }()
	mem.Connect(10, []byte(harness.UpgradeRequest("/ws", "")))
	mem.Wait()
	require.Equal(t, 10, m.GetClientCount())
	mem.Send(4, []byte(harness.Frame(1, "x")))
	require.ErrorContains(t, harness.Receive(t, run, "Run did not return"), "runtime.Goexit")
	harness.Shutdown(t, m)
	assert.Zero(t, m.GetClientCount())
}

// Goexit in a loop while Shutdown waits for the clients.
func TestGoexitDuringShutdown(t *testing.T) {
	s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithLoops(1), ws.WithMetrics(exitingMetrics{}))
	s.Abandon()
	defer s.Web.Close()
	clients := []*harness.Client{s.Dial(harness.Native), s.Dial(harness.Native)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		harness.Shutdown(t, s.Manager)
	}()
	clients[0].ExpectClose(1001)
	clients[0].Abort()
	harness.Receive(t, done, "Shutdown did not end")
	require.Error(t, harness.Receive(t, s.Ran, "Run did not return"))
}

// A pooled handler that ends its goroutine ends one message: the client reads an error,
// and its next messages are handled, on as many workers as before.
func TestGoexitPooled(t *testing.T) {
	const messages = 60
	routes := map[string][]ws.RouteOption{"shared pool": nil, "own pool": {ws.RunOn(ws.NewPool(1))}}
	for name, opts := range routes {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				log := &logBuffer{}
				s := harness.Start(t, ws.WithWorkers(1), func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
				require.NoError(t, ws.Handle0(s.Manager, "exit", func(_ *ws.Client, req *ordered) error {
					if req.N%2 == 0 {
						runtime.Goexit()
					}
					return nil
				}, opts...))
				c := s.Dial(w)
				c.WriteRaw(burstOf("exit", messages))
				for i := range messages {
					if i%2 == 0 {
						c.ExpectReply(strconv.Itoa(i), 500, "internal error")
					} else {
						c.ExpectReply(strconv.Itoa(i), 200, "")
					}
				}
				assert.Contains(t, log.String(), "runtime.Goexit")
				assert.Contains(t, log.String(), "event=exit")
			})
		})
	}
}

// A subscriber that ends its goroutine loses that event alone: the others get it, and the
// bus goes on.
func TestGoexitSubscriber(t *testing.T) {
	s := harness.Start(t)
	var before, exits atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { before.Add(1) })
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { exits.Add(1); runtime.Goexit() })
	after := s.Events(ws.EventClientConnected, ws.EventClientDisconnected)
	for range 20 {
		require.NoError(t, s.Dial(harness.Native).Close())
	}
	for range 2 * 20 {
		harness.Receive(t, after, "an event is lost")
	}
	assert.EqualValues(t, 20, before.Load())
	assert.EqualValues(t, 20, exits.Load())
	s.Stop()
	assert.Empty(t, after)
}

// Authenticate that ends its goroutine refuses, and takes no worker away.
func TestGoexitAuthenticate(t *testing.T) {
	t.Parallel()
	withTimeout := func(c *ws.Config) { c.HandshakeTimeout = 4 * time.Second }
	s := harness.Start(t, ws.WithWorkers(1), withTimeout,
		ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			switch {
			case r.URL.Query().Has("exit"):
				runtime.Goexit()
			case r.URL.Query().Has("wait"):
				<-r.Context().Done()
			}
			return nil, nil
		}))
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for range 5 {
			_, err := s.TryDial(w, "exit=1")
			require.Error(t, err)
			require.False(t, isTimeout(err))
			require.NoError(t, s.Dial(w).Close())
		}
		_, err := s.TryDial(w, "wait=1")
		require.Error(t, err, "the time of all calls is over")
		harness.Eventually(t, func() bool { return s.Stats().Stuck == 0 }, "calls that have ended count as stuck")
	})
	harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "clients are left")
}

// OnSlow that ends its goroutine does not keep OnDrain from being called.
func TestGoexitOnSlow(t *testing.T) {
	drained := make(chan struct{}, 1)
	s := harness.Start(t, ws.WithWorkers(1), harness.WithDeepQueue, func(c *ws.Config) {
		c.OnSlow = func(*ws.Client, int) { runtime.Goexit() }
		c.OnDrain = func(*ws.Client) { drained <- struct{}{} }
	})
	c, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	for range 2000 {
		err := sc.SendBytes([]byte(strings.Repeat("x", 1<<19)))
		if err != nil {
			require.ErrorIs(t, err, ws.ErrChannelFull) // the loop is far behind
		}
		if err != nil || s.Stats().Total.Slow > 0 {
			break
		}
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.Slow > 0 }, "not slow")
	go func() { _, _ = io.Copy(io.Discard, c.Conn) }()
	harness.Receive(t, drained, "no OnDrain")
}

// GetCertificate that ends its goroutine fails that handshake alone.
func TestGoexitGetCertificate(t *testing.T) {
	s := harness.StartTLS(t, func(cfg *tls.Config) {
		certificates := cfg.Certificates
		cfg.Certificates = nil
		cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "localhost" {
				runtime.Goexit()
			}
			return &certificates[0], nil
		}
	}, func(c *ws.Config) { c.TLSHandshakes = 1 })
	for range 5 {
		exit := s.ClientConfig(tls.VersionTLS13)
		exit.ServerName = "exit.example"
		err := tls.Client(s.DialTCP(harness.Native).Conn, exit).HandshakeContext(context.Background())
		require.Error(t, err)
		require.False(t, isTimeout(err))
		require.NoError(t, s.DialTLS(harness.Native, s.ClientConfig(tls.VersionTLS13)).Close())
	}
}

// exitingRoomMetrics ends the goroutine that has ended the last room.
type exitingRoomMetrics struct {
	ws.NoopMetrics
	ends chan struct{}
}

func (m exitingRoomMetrics) SetRoomCount(n int) {
	if n == 0 {
		m.ends <- struct{}{}
		runtime.Goexit()
	}
}

// Rooms end also after the Metrics have ended the goroutine that looks for empty ones, which is
// logged. The Metrics are called again.
func TestGoexitInTheRoomJanitor(t *testing.T) {
	var log logBuffer
	ends := make(chan struct{}, 1000)
	s := harness.Start(t, ws.WithMetrics(exitingRoomMetrics{ends: ends}), func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	rounds := 0
	harness.Eventually(t, func() bool {
		created := make(chan struct{})
		go func() { // the Metrics end it if the room ends before CreateRoom reports it
			defer close(created)
			_, err := s.CreateRoom("r", nil)
			assert.NoError(t, err)
		}()
		harness.Receive(t, created, "CreateRoom did not return")
		harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the room stays")
		harness.Receive(t, ends, "the count of rooms is not reported")
		rounds++
		return rounds >= 2 && strings.Contains(log.String(), "runtime.Goexit")
	}, "nothing is logged")
}
