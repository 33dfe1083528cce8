package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// impatient lets a client wait for a thousandth of the usual times.
func impatient() client.Option { return client.WithRandom(func() float64 { return 0.001 }) }

// newClient returns a client of the server that dial reaches, until the end of the test.
func newClient(t testing.TB, url string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, append([]client.Option{impatient()}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { closeClient(t, c) })
	return c
}

func closeClient(t testing.TB, c *client.Client) {
	c.Close()
	harness.Receive(t, c.Done(), "the client does not end")
}

// within returns a context for one call.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	t.Cleanup(cancel)
	return ctx
}

// connect returns an open client of an endpoint.
func connect(t testing.TB, s *harness.Endpoint, opts ...client.Option) *client.Client {
	t.Helper()
	url := "ws://" + s.AddrOf(s.Way) + "/ws"
	if s.TLS != nil {
		url = "ws" + "s://" + s.AddrOf(s.Way) + "/ws"
		opts = append(opts, client.WithTLSConfig(s.TLS))
	}
	c := newClient(t, url, opts...)
	require.NoError(t, c.Connect(within(t)))
	return c
}

func TestConversation(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithSubprotocols("v1", "v2"), func(c *ws.Config) { c.HeartbeatInterval = 20 * time.Millisecond })
		harness.RegisterGreetings(t, s.Manager)
		require.NoError(t, s.Register("shout", func(c *ws.Client, m *ws.Message) error {
			for _, text := range []string{`{"type":"notify","event":"heard","data":` + string(m.Data) + `}`, `raw`} {
				if err := c.SendBytes([]byte(text)); err != nil {
					return err
				}
			}
			return c.SendBinary([]byte{1})
		}))
		c := connect(t, s, client.WithSubprotocols("v2", "v3"))
		assert.Equal(t, "v2", c.Subprotocol())
		heard, raw := make(chan client.Notify, 10), make(chan string, 10)
		c.On("heard", func(n client.Notify) { heard <- n })
		c.OnRaw(func(text bool, payload []byte) { raw <- fmt.Sprintf("%t %v", text, payload) })

		welcome, err := client.Request[harness.Welcome](within(t), c, "greet", harness.Greeting{Name: "Ann"})
		require.NoError(t, err)
		assert.Equal(t, "hello, Ann", welcome.Text)
		long := strings.Repeat("x", 200_000)
		welcome, err = client.Request[harness.Welcome](within(t), c, "greet", harness.Greeting{Name: long})
		require.NoError(t, err)
		assert.Equal(t, "hello, "+long, welcome.Text)
		var refused *client.ServerError
		require.ErrorAs(t, c.Request(within(t), "greet", harness.Greeting{Name: "forbidden"}, nil), &refused)
		assert.Equal(t, 403, refused.Code)
		assert.NotEmpty(t, refused.TraceID)

		require.NoError(t, c.Notify("shout", []int{1, 2}))
		var numbers []int
		require.NoError(t, harness.Receive(t, heard, "no notification").Decode(&numbers))
		assert.Equal(t, []int{1, 2}, numbers)
		assert.Equal(t, "true [114 97 119]", harness.Receive(t, raw, "no text"))
		assert.Equal(t, "false [1]", harness.Receive(t, raw, "no binary message"))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, c.Request(ctx, "silent", nil, nil), context.Canceled)
		closeClient(t, c)
		assert.ErrorIs(t, c.Request(within(t), "greet", nil, nil), client.ErrClosed)
		assert.ErrorIs(t, c.Err(), client.ErrClosed)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the server keeps the client")
	})
}

// A request that waits in the queue is sent to the new server.
func TestServerRestart(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		first := harness.Start(t)
		harness.RegisterGreetings(t, first.Manager)
		at := newSite(first.AddrOf(w))
		waiting := make(chan client.State, 1000)
		c := newClient(t, "ws://example.com/ws", client.WithDialer(at.dial), client.WithOnState(func(s client.State) {
			if s.Phase == client.Waiting {
				select {
				case waiting <- s:
				default:
				}
			}
		}))
		require.NoError(t, c.Connect(within(t)))
		require.NoError(t, c.Request(within(t), "greet", harness.Greeting{Name: "Ann"}, nil))
		first.Stop()
		var closed *client.CloseError
		require.ErrorAs(t, harness.Receive(t, waiting, "the client does not wait").Err, &closed)
		assert.Equal(t, 1001, closed.Code)
		second := harness.Start(t)
		harness.RegisterGreetings(t, second.Manager)
		at.move(second.AddrOf(w))
		require.NoError(t, c.Request(within(t), "greet", harness.Greeting{Name: "Ann"}, nil))
	})
}

// greet sends an idempotent request.
func greet(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	return c.Request(ctx, "greet", harness.Greeting{Name: "Ann"}, nil, client.Idempotent())
}

// Clients move from a server that is drained to another one: no request fails, and no client is
// without a connection at any time.
func TestDrain(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		notice := ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.URL.Query().Get("notice") != "1" {
				return nil, errors.New("no notice=1")
			}
			return []ws.ClientOption{ws.WithReconnectNotice()}, nil
		})
		first, second := start(notice), start(notice)
		harness.RegisterGreetings(t, first.Manager)
		harness.RegisterGreetings(t, second.Manager)
		at := newSite(first.AddrOf(first.Way))
		const clients = 10
		var states sync.Map
		var users sync.WaitGroup
		stop := make(chan struct{})
		for i := range clients {
			long := client.WithHandshakeTimeout(harness.Patience) // another attempt would be another state
			opts := []client.Option{long, client.WithDialer(at.dial), client.WithOnState(func(s client.State) {
				list, _ := states.LoadOrStore(i, new([]client.Phase))
				*list.(*[]client.Phase) = append(*list.(*[]client.Phase), s.Phase)
			})}
			if second.TLS != nil { // its certificate is its own
				cfg := second.TLS.Clone()
				cfg.InsecureSkipVerify = true
				opts = append(opts, client.WithTLSConfig(cfg))
			}
			scheme := map[bool]string{false: "ws", true: "wss"}[second.TLS != nil]
			c := newClient(t, scheme+"://localhost/ws?a=b", opts...)
			require.NoError(t, c.Connect(within(t)))
			users.Go(func() {
				for {
					select {
					case <-stop:
						closeClient(t, c)
						return
					default:
						assert.NoError(t, greet(c))
					}
				}
			})
		}
		at.move(second.AddrOf(second.Way))
		err := first.Drain(within(t), ws.DrainConfig{Grace: -1, Window: 200 * time.Millisecond, Settle: harness.Patience})
		assert.NoError(t, err)
		assert.Equal(t, clients, second.GetClientCount())
		close(stop)
		users.Wait()
		assert.Equal(t, clients, first.DrainStats().Moved)
		for i := range clients {
			list, _ := states.Load(i)
			assert.Equal(t, []client.Phase{client.Connecting, client.Open, client.Closed}, *list.(*[]client.Phase))
		}
	})
}

// Idempotent requests survive a network that cuts, resets, delays and loses.
func TestCuts(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		harness.RegisterGreetings(t, s.Manager)
		proxy := newCutter(t, s.AddrOf(w), 7)
		var users sync.WaitGroup
		var lost atomic.Int64
		proxy.setRate(0.05)
		requests := harness.FewerUnderRace(100)
		for range 4 {
			c := newClient(t, "ws://"+proxy.addr()+"/ws")
			require.NoError(t, c.Connect(within(t)))
			users.Go(func() {
				for i := range requests {
					square, err := client.Request[int](within(t), c, "number", i, client.Idempotent())
					assert.NoError(t, err)
					assert.Equal(t, i*i, square)
					if err := c.Request(within(t), "number", i, nil); err != nil {
						assert.ErrorIs(t, err, client.ErrConnectionLost)
						lost.Add(1)
					}
				}
			})
		}
		users.Wait()
		t.Logf("%d faults, %d requests lost", proxy.count(), lost.Load())
	})
}

// The server vanishes without a FIN: the client finds out by its pings.
func TestSilence(t *testing.T) {
	s := harness.Start(t)
	harness.RegisterGreetings(t, s.Manager)
	var held sync.Map
	first := make(chan struct{})
	mute := harness.Listen(t, "tcp", "127.0.0.1:0")
	at := newSite(s.AddrOf(harness.Native))
	c := newClient(t, "ws://example.com/ws", client.WithDialer(at.dial), client.WithHeartbeat(20*time.Millisecond))
	require.NoError(t, c.Connect(within(t)))
	go func() { // a server that answers the handshake only
		defer close(first)
		conn, err := mute.Accept()
		if err == nil {
			held.Store(conn, true)
			answerHandshake(conn)
		}
	}()
	at.move(mute.Addr().String())
	harness.Eventually(t, func() bool {
		s.RangeClients(func(sc *ws.Client) bool { sc.Abort(); return true })
		select {
		case <-first:
			return true
		default:
			return false
		}
	}, "the client does not connect again")
	at.move(s.AddrOf(harness.Native))
	require.NoError(t, c.Request(within(t), "greet", harness.Greeting{Name: "Ann"}, nil, client.Idempotent()))
	held.Range(func(conn, _ any) bool { return conn.(interface{ Close() error }).Close() == nil })
}

// While a callback waits, the client stops reading, and loses nothing.
func TestSlowCallback(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, func(c *ws.Config) { c.MessageQueueSize = 1 << 13; c.WriteTimeout = 0 })
	c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws", client.WithMaxCallbacks(4))
	const messages = 3000
	release, done := make(chan struct{}), make(chan struct{})
	next := 0
	c.On("number", func(n client.Notify) {
		<-release
		var i int
		assert.NoError(t, n.Decode(&i))
		assert.Equal(t, next, i)
		if next++; next == messages {
			close(done)
		}
	})
	require.NoError(t, c.Connect(within(t)))
	padding := strings.Repeat(" ", 8<<10)
	s.RangeClients(func(sc *ws.Client) bool {
		for i := range messages {
			require.NoError(t, sc.SendBytes(fmt.Appendf(nil, `{"type":"notify","event":"number",%s"data":%d}`, padding, i)))
		}
		return true
	})
	harness.Eventually(t, func() bool { return s.Stats().Total.BlockedTotal > 0 }, "the client goes on reading")
	close(release)
	harness.Receive(t, done, "messages are lost")
}

// A client that does not read, because a callback waits, does not take the server for silent.
func TestStalledClientStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{t: t, servers: make(map[int]*fakeServer)}
		release := make(chan struct{})
		received := 0
		c, err := client.New("ws://example.com/", client.WithDialer(st.dial), client.WithMaxCallbacks(1),
			client.WithOnState(st.onState))
		require.NoError(t, err)
		c.On("x", func(client.Notify) {
			<-release
			received++
		})
		go func() { _ = c.Connect(context.Background()) }()
		synctest.Wait()
		st.dials[0] <- true
		synctest.Wait()
		go func() {
			for range 100 {
				st.servers[1].send(codec.OpText, []byte(`{"type":"notify","event":"x"}`))
			}
		}()
		<-time.After(time.Hour)
		assert.Equal(t, client.Open, c.State().Phase)
		close(release)
		<-time.After(time.Hour)
		assert.Equal(t, 100, received)
		assert.Len(t, st.dials, 1)
		c.Close()
		<-c.Done()
	})
}

// A callback may wait for an answer while many messages wait.
func TestRequestInCallback(t *testing.T) {
	s := harness.Start(t)
	harness.RegisterGreetings(t, s.Manager)
	require.NoError(t, s.Register("burst", func(c *ws.Client, _ *ws.Message) error {
		for range 100 {
			if err := c.SendBytes([]byte(`{"type":"notify","event":"ask"}`)); err != nil {
				return err
			}
		}
		return nil
	}))
	c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws", client.WithMaxCallbacks(1))
	answers := make(chan error, 100)
	c.On("ask", func(client.Notify) { answers <- c.Request(within(t), "number", 3, nil) })
	require.NoError(t, c.Connect(within(t)))
	require.NoError(t, c.Notify("burst", nil))
	for range 100 {
		require.NoError(t, harness.Receive(t, answers, "no answer"))
	}
}

func TestRefusals(t *testing.T) {
	var status atomic.Int64
	s := harness.Start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		if r.Header.Get("Token") == "fresh" {
			return nil, nil
		}
		return nil, &ws.HandshakeError{Status: int(status.Load())}
	}))
	url := "ws://" + s.AddrOf(harness.Native) + "/ws"
	prepare := client.WithPrepare(func(_ context.Context, a *client.Attempt) error {
		if a.Refresh {
			a.Header.Set("Token", "fresh")
		}
		return nil
	})
	status.Store(403)
	_, err := client.Dial(within(t), url, prepare)
	var refused *client.HandshakeError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, 403, refused.Status)
	status.Store(401)
	c := newClient(t, url, prepare)
	require.NoError(t, c.Connect(within(t)))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = client.Dial(ctx, url, client.WithHeader(http.Header{"Token": {"old"}}))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	for _, bad := range []string{"http://a/", "ws://u:p@a/", "ws://", "::"} {
		_, err := client.New(bad)
		assert.Error(t, err, bad)
	}
	_, err = client.New(url, client.WithHeader(http.Header{"Upgrade": {"x"}}))
	require.Error(t, err)
	assert.Error(t, c.Request(within(t), "x", func() {}, nil), "no JSON")
	assert.ErrorAs(t, c.Notify("x", func() {}), new(*json.UnsupportedTypeError))
}
