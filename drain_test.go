package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// atOnce is a drain without a grace, a window and a notice.
var atOnce = ws.DrainConfig{Grace: -1, Window: -1, Settle: -1}

// moving is an Authenticate: the clients with ?move understand the notice.
func moving(r *http.Request) ([]ws.ClientOption, error) {
	opts, err := harness.ByQuery(r)
	if r.URL.Query().Has("move") {
		opts = append(opts, ws.WithReconnectNotice())
	}
	return opts, err
}

// drain calls Drain in the background.
func drain(s *harness.Server, ctx context.Context, cfg ws.DrainConfig) <-chan error {
	result := make(chan error, 1)
	go func() { result <- s.Drain(ctx, cfg) }()
	return result
}

// retryOf returns the retry_ms of a close reason.
func retryOf(t *testing.T, reason string) int {
	t.Helper()
	var retry struct {
		MS *int `json:"retry_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(reason), &retry), reason)
	require.NotNil(t, retry.MS, reason)
	return *retry.MS
}

// Every client gets its queued messages, then 1012 with the time of its return.
func TestDrain(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		const clients = 10
		s := start()
		var conns []*harness.Client
		for range clients {
			conns = append(conns, s.Connect())
		}
		s.RangeClients(func(c *ws.Client) bool { require.NoError(t, c.JoinRoom("r")); return true })
		for i := range 50 {
			require.NoError(t, s.BroadcastToRoom("r", fmt.Append(nil, i), nil))
		}
		ended := drain(s.Server, t.Context(), ws.DrainConfig{Grace: -1, Window: 100 * time.Millisecond})
		for _, c := range conns {
			for i := range 50 {
				c.Expect(fmt.Sprint(i))
			}
			assert.LessOrEqual(t, retryOf(t, c.ExpectClose(1012)), 1000)
		}
		for _, c := range conns { // ended only when all have answered
			require.Empty(t, ended)
			c.SendClose(1012, "")
		}
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		assert.Equal(t, ws.DrainStats{
			Phase: ws.DrainDone, Total: clients, Closed: clients, Pace: clients / 0.1,
		}, s.DrainStats())
		require.NoError(t, s.Drain(t.Context(), ws.DrainConfig{}), "again")
	})
}

// A load balancer reads 503 at once, and clients still come during the grace.
func TestDrainGrace(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		get := func(path string) (int, string) {
			c := s.DialTCP(harness.Native)
			defer c.Close()
			c.WriteRaw("GET " + path + " HTTP/1.0\r\n\r\n")
			resp, body := c.ReadResponse()
			return resp.StatusCode, body
		}
		status, _ := get("/readyz")
		require.Equal(t, 200, status)
		require.Zero(t, s.DrainStats())
		require.False(t, s.Stats().Draining)
		ended := drain(s, t.Context(), ws.DrainConfig{Grace: time.Second, Window: -1})
		harness.Eventually(t, func() bool { return s.Stats().Draining }, "no drain")
		status, body := get("/readyz")
		require.Equal(t, 503, status)
		require.Equal(t, "draining\n", body)
		c, err := s.TryDial(w) // unless this machine took the whole grace for it
		refused := uint64(1)   // by Status below
		if s.DrainStats().Phase == ws.DrainGrace {
			require.NoError(t, err)
			require.Equal(t, 1, s.DrainStats().Remaining)
		}
		if err == nil {
			c.ExpectClose(1012)
			c.Finish(1012)
		} else {
			refused++
		}
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		require.Equal(t, 503, s.Status(w, ""))
		require.Equal(t, refused, s.Stats().Refused.Stopped)
		status, _ = get("/healthz")
		require.Equal(t, 200, status, "the process lives until Shutdown")
	})
}

// A client that understands the notice opens its new connection first.
func TestDrainNotice(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(func(c *ws.Config) {
			c.Authenticate = func(r *http.Request) ([]ws.ClientOption, error) {
				return []ws.ClientOption{ws.WithReconnectNotice()}, nil
			}
		})
		moves, stays := s.Connect(), s.Connect()
		ended := drain(s.Server, t.Context(), ws.DrainConfig{
			Grace: -1, Window: -1, Settle: time.Second, Code: 4000, RetrySpread: -1,
		})
		for _, c := range []*harness.Client{moves, stays} {
			e := c.ReadEnvelope()
			assert.Equal(t, "notify", e.Type)
			assert.Equal(t, "ws.reconnect", e.Event)
			assert.JSONEq(t, `{"retry_ms":0,"resume":true}`, string(e.Data))
			assert.InDelta(t, time.Now().Unix(), e.Timestamp, 60)
		}
		moves.SendClose(1000, "moved")
		code, reason := gobwas.ParseCloseFrameData(moves.Next().Payload)
		moved := code == 1000 // the server's close may come first on a busy machine
		if moved {
			assert.Equal(t, "moved", reason)
		} else {
			assert.EqualValues(t, 4000, code)
		}
		assert.Equal(t, `{"retry_ms":0}`, stays.ExpectClose(4000))
		stays.Finish(4000)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		st := s.DrainStats()
		assert.Equal(t, 2, st.Total)
		if moved {
			assert.Equal(t, [2]int{1, 1}, [2]int{st.Moved, st.Closed})
		}
	})
}

// Answers to the messages that have come before the slot go before the close frame.
func TestDrainAnswersRequests(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithMailboxSize(1))
		entered, release := harness.RegisterBlock(t, s.Manager)
		c := s.Connect()
		c.Send(harness.BlockMessage(1))
		harness.Receive(t, entered, "the handler did not run")
		c.Send(harness.BlockMessage(2), harness.BlockMessage(3)) // which fills the mailbox
		harness.Eventually(t, func() bool { return s.Stats().Total.MessagesIn == 3 }, "not all are read")
		ended := drain(s.Server, t.Context(), atOnce)
		harness.Eventually(t, func() bool { return s.DrainStats().Phase == ws.DrainSlots }, "no slots")
		release()
		for i := range 3 {
			c.ExpectReply(fmt.Sprint(i+1), 200, "success")
		}
		c.ExpectClose(1012)
		c.Finish(1012)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
	})
}

// The messages that come behind our close frame are handled.
func TestDrainHandlesMessages(t *testing.T) {
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		const messages = 100
		s := start(ws.WithMailboxSize(4))
		var handled atomic.Int64
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, _ []byte) {
			handled.Add(1)
			assert.ErrorIs(t, c.SendBytes([]byte("x")), ws.ErrConnectionClosed)
		})
		c := s.Connect()
		ended := drain(s.Server, t.Context(), atOnce)
		c.ExpectClose(1012)
		for i := range messages {
			c.Send(fmt.Sprint(i))
		}
		c.Finish(1012)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		harness.Eventually(t, func() bool { return handled.Load() == messages }, "%d handled", handled.Load())
		assert.Zero(t, s.Stats().Unhandled)
	})
}

// CloseWithCode ends that: the application does not want the client's messages.
func TestDrainOfAClientThatIsClosed(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { assert.Fail(t, "handled") })
		c, sc := s.DialClient(w)
		ended := drain(s, t.Context(), atOnce)
		c.ExpectClose(1012)
		sc.CloseWithCode(4403, "blocked")
		c.Send("a", "b")
		c.Finish(1012)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		harness.Eventually(t, func() bool { return s.Stats().Unhandled == 2 }, "not counted")
	})
}

// The pace of a drain over real sockets, whose clients a busy machine delays. The engine has a
// test of the exact pace.
func TestDrainPace(t *testing.T) {
	const window = 3 * time.Second
	clients := harness.FewerUnderRace(300)
	s := harness.Start(t)
	for i := range clients {
		c := s.Dial([]harness.Way{harness.Native, harness.NetHTTP}[i%2])
		go func() { // until the close frame, or the end of the test
			if f, err := harness.ReadFrame(c.R); err == nil {
				_, _ = c.Write([]byte(harness.Frame(f.Header.OpCode, string(f.Payload))))
			}
		}()
	}
	asked := time.Now()
	ended := drain(s, t.Context(), ws.DrainConfig{Grace: -1, Window: window})
	harness.Eventually(t, func() bool { return s.DrainStats().Phase == ws.DrainSlots }, "no slots")
	assert.InDelta(t, float64(clients)/window.Seconds(), s.DrainStats().Pace, 1e-9)
	var deviations []float64
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for began := time.Now(); len(ended) == 0; <-poll.C {
		least := min(1, time.Since(began).Seconds()/window.Seconds())
		closed := float64(s.DrainStats().Closed) / float64(clients)
		most := min(1, time.Since(asked).Seconds()/window.Seconds()) // the slots begin between the two
		deviations = append(deviations, max(0, least-closed, closed-most))
	}
	require.NoError(t, <-ended)
	require.Greater(t, len(deviations), 20)
	slices.Sort(deviations)
	t.Logf("median deviation %.3f", deviations[len(deviations)/2])
	assert.Less(t, deviations[len(deviations)/2], 0.3)
	assert.Equal(t, clients, s.DrainStats().Closed)
}

// A client that reads nothing is closed by the timeout, and the others do not wait for it.
func TestDrainOfAStalledClient(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, harness.WithDeepQueue, ws.WithCloseTimeout(6*time.Second))
		_, stalled := s.DialClient(w)
		s.Stall(stalled)
		c := s.Dial(w)
		ended := drain(s, t.Context(), atOnce)
		c.ExpectClose(1012)
		c.Finish(1012)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
		st := s.DrainStats()
		assert.Equal(t, 2, st.Closed)
	})
}

// At the end of its context Drain closes the rest at once; so does Shutdown.
func TestDrainEnds(t *testing.T) {
	for name, end := range map[string]func(s *harness.Server, cancel func()) error{
		"context": func(_ *harness.Server, cancel func()) error {
			cancel()
			return context.Canceled
		},
		"Shutdown": func(s *harness.Server, _ func()) error {
			go s.Stop()
			return ws.ErrManagerStopped
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, ws.WithAuthenticate(moving))
				conns := []*harness.Client{s.Dial(w), s.Dial(w, "move=1"), s.Dial(w)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := drain(s, ctx, ws.DrainConfig{Grace: -1, Window: time.Hour, Settle: time.Hour})
				harness.Eventually(t, func() bool { return s.DrainStats().Phase == ws.DrainSlots }, "no slots")
				want := end(s, cancel)
				for _, c := range conns {
					for closed := false; !closed; {
						closed = c.Next().Header.OpCode == 8
					}
				}
				for _, c := range conns {
					c.Finish(1012)
				}
				require.ErrorIs(t, harness.Receive(t, first, "Drain did not return"), want)
				harness.Eventually(t, func() bool { return s.DrainStats().Remaining == 0 }, "clients are left")
				assert.Equal(t, 3, s.DrainStats().Forced)
			})
		})
	}
}

// Concurrent calls wait for the same end.
func TestDrainTwice(t *testing.T) {
	s := harness.Start(t)
	c := s.Dial(harness.Native)
	first := drain(s, t.Context(), ws.DrainConfig{Grace: -1, Window: 10 * time.Millisecond})
	second := drain(s, t.Context(), ws.DrainConfig{Grace: -1, Window: 10 * time.Millisecond})
	c.ExpectClose(1012)
	require.Empty(t, first)
	require.Empty(t, second)
	c.Finish(1012)
	require.NoError(t, harness.Receive(t, first, "Drain did not return"))
	require.NoError(t, harness.Receive(t, second, "Drain did not return"))
}

func TestDrainBeforeRunAndAfterShutdown(t *testing.T) {
	m := harness.NewManager(t)
	require.ErrorIs(t, m.Drain(t.Context(), ws.DrainConfig{Code: 1006}), ws.ErrInvalidConfig)
	require.ErrorIs(t, m.Drain(t.Context(), ws.DrainConfig{Code: 1 << 20}), ws.ErrInvalidConfig)
	require.Zero(t, m.DrainStats(), "no drain has begun")
	require.NoError(t, m.Drain(t.Context(), ws.DrainConfig{}))
	s := harness.Run(t, m)
	require.Equal(t, 503, s.Status(harness.Native, ""))
	require.Equal(t, 503, s.Status(harness.NetHTTP, ""))
	s.Stop()
	require.ErrorIs(t, m.Drain(t.Context(), ws.DrainConfig{}), ws.ErrManagerStopped)
}

// Nobody is there: Drain takes no longer than its grace.
func TestDrainOfNobody(t *testing.T) {
	s := harness.Start(t)
	require.NoError(t, s.Drain(t.Context(), ws.DrainConfig{Grace: 50 * time.Millisecond, Window: time.Hour}))
	require.Equal(t, ws.DrainStats{Phase: ws.DrainDone}, s.DrainStats())
}

// A client in OnConnect connects first, and one in Authenticate is refused.
func TestDrainDuringHandshakes(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		connecting, authenticating := make(chan struct{}, 1), make(chan struct{}, 1)
		release := make(chan struct{})
		s := harness.Start(t, func(c *ws.Config) {
			c.OnConnect = func(c *ws.Client) error {
				connecting <- struct{}{}
				<-release
				return c.SendBytes([]byte("welcome"))
			}
			c.Authenticate = func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.Query().Has("slow") {
					authenticating <- struct{}{}
					<-release
				}
				return nil, nil
			}
		})
		first, second := s.DialTCP(w), s.DialTCP(w)
		first.WriteRaw(harness.UpgradeRequest("/ws", ""))
		harness.Receive(t, connecting, "no OnConnect")
		second.WriteRaw(harness.UpgradeRequest("/ws?slow=1", ""))
		harness.Receive(t, authenticating, "no Authenticate")
		ended := drain(s, t.Context(), atOnce)
		harness.Eventually(t, func() bool { return s.DrainStats().Phase == ws.DrainSlots }, "no slots")
		close(release)
		resp, _ := first.ReadResponse()
		require.Equal(t, 101, resp.StatusCode)
		first.Expect("welcome")
		first.ExpectClose(1012)
		first.Finish(1012)
		resp, _ = second.ReadResponse()
		require.Equal(t, 503, resp.StatusCode)
		require.NoError(t, harness.Receive(t, ended, "Drain did not return"))
	})
}

// A connection ends by itself at the end of its lifetime, and the server goes on.
func TestMaxLifetime(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		const most, jitter = 1500 * time.Millisecond, 500 * time.Millisecond
		s := start(ws.WithMaxLifetime(most, jitter))
		for range 2 {
			began := time.Now()
			c := s.Connect()
			assert.LessOrEqual(t, retryOf(t, c.ExpectClose(1012)), 1000)
			assert.GreaterOrEqual(t, time.Since(began), most-jitter-500*time.Millisecond, "two ticks")
			c.Finish(1012)
		}
		assert.EqualValues(t, 2, s.Stats().Total.Retired)
		assert.Zero(t, s.DrainStats())
		assert.False(t, s.Stats().Draining)
	})
}

func TestDrainPhase(t *testing.T) {
	for phase, want := range map[ws.DrainPhase]string{
		ws.DrainNone: "none", ws.DrainGrace: "grace", ws.DrainSlots: "slots", ws.DrainDone: "done",
	} {
		text, err := json.Marshal(phase)
		require.NoError(t, err)
		assert.Equal(t, `"`+want+`"`, string(text))
	}
}
