package ws_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
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
	"github.com/qi-realtime/ws/internal/race"
	"github.com/qi-realtime/ws/wstest"
)

// idempotent encodes a request that the client may repeat.
func idempotent(event, id, data string) string {
	return strings.Replace(harness.Request(event, id, data), `"data":`, `"idempotent":true,"data":`, 1)
}

// keepsReplies are the options of a server that knows users.
func keepsReplies(more ...ws.Option) []ws.Option {
	return append([]ws.Option{ws.WithIdempotency(time.Hour), ws.WithAuthenticate(harness.ByQuery)}, more...)
}

// otherWay is the other of harness.OnBothWays.
func otherWay(w harness.Way) harness.Way {
	if w == harness.Native {
		return harness.NetHTTP
	}
	return harness.Native
}

// errPrivate is an error that a client reads as code 500.
var errPrivate = errors.New("private")

// registerReplies registers handlers that answer in each way, under the codes of their
// replies, and counts their calls.
func registerReplies(t *testing.T, m *ws.Manager) (runs *atomic.Int32, codes map[string]int) {
	runs = new(atomic.Int32)
	count := func() int { return int(runs.Add(1)) }
	require.NoError(t, ws.Handle(m, "typed", func(_ *ws.Client, in *string) (*string, error) {
		out := *in + strconv.Itoa(count())
		return &out, nil
	}))
	require.NoError(t, ws.Handle0(m, "typed0", func(*ws.Client, *string) error { count(); return nil }))
	require.NoError(t, ws.HandleOnly(m, "only", func(*ws.Client) (*int, error) { n := count(); return &n, nil }))
	require.NoError(t, ws.HandleOnly(m, "bad value", func(*ws.Client) (*func(), error) {
		count()
		return new(func()), nil
	}))
	require.NoError(t, ws.Handle0(m, "refuses", func(*ws.Client, *string) error {
		return ws.NewClientError(409, "not "+strconv.Itoa(count())).WithData(1)
	}))
	require.NoError(t, ws.Handle0(m, "away", func(*ws.Client, *string) error { count(); return ws.ErrChannelFull }))
	require.NoError(t, ws.Handle0(m, "fails", func(*ws.Client, *string) error { count(); return errPrivate }))
	require.NoError(t, ws.Handle0(m, "panics", func(*ws.Client, *string) error { count(); panic("private") }))
	require.NoError(t, ws.Handle0(m, "undecoded", func(*ws.Client, *int) error { count(); return nil }))
	require.NoError(t, m.Register("response", func(c *ws.Client, msg *ws.Message) error {
		return c.SendResponse(msg.RequestID, 201, "made", count())
	}))
	require.NoError(t, m.Register("error", func(c *ws.Client, msg *ws.Message) error {
		return c.SendError(msg.RequestID, 402, "pay "+strconv.Itoa(count()))
	}))
	require.NoError(t, m.Register("later", func(c *ws.Client, msg *ws.Message) error {
		id, n := msg.RequestID, count()
		go func() { _ = c.SendResponse(id, 202, "later", n) }()
		return nil
	}))
	return runs, map[string]int{
		"typed": 200, "typed0": 200, "only": 200, "bad value": 500, "refuses": 409, "away": 503, "fails": 500, "panics": 500,
		"undecoded": 400, "response": 201, "error": 402, "later": 202,
	}
}

// A repeat on another connection gets the bytes of the first reply, whichever way the handler
// answers, and the handler runs once.
func TestRepeatsGetTheFirstReply(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode)...)
		runs, codes := registerReplies(t, s.Manager)
		for event, code := range codes {
			runs.Store(0)
			c := s.Dial(w, "user=7")
			c.Send(idempotent(event, event, `"a"`))
			first := string(c.Next().Payload)
			assert.Contains(t, first, `"code":`+strconv.Itoa(code)+",", event)
			c.Send(idempotent(event, event, `"a"`))
			c.Expect(first)
			c.Abort()
			c = s.Dial(otherWay(w), "username=7")
			c.Send(idempotent(event, event, `"a"`), idempotent(event, event, `"a"`))
			c.Expect(first, first)
			c.Send(idempotent(event, event, `"b"`))
			c.ExpectReply(event, 422, "request_id belongs to another request")
			c.Send(idempotent("typed0", event, `"a"`))
			if event != "typed0" {
				c.ExpectReply(event, 422, "request_id belongs to another request")
			} else {
				c.Expect(first)
			}
			if event != "undecoded" {
				assert.EqualValues(t, 1, runs.Load(), event)
			}
		}
		st := s.Stats().Idempotency
		assert.Equal(t, len(codes), st.Requests)
		assert.EqualValues(t, 3*len(codes)+1, st.Repeats)
		assert.EqualValues(t, 2*len(codes)-1, st.Differed)
		assert.Positive(t, st.Bytes)
		assert.Zero(t, st.Evicted+st.Refused+st.Unkept)
	})
}

// Repeats of a request that runs wait for its reply, although its connection is gone. Each
// connection gets it once.
func TestRepeatsWaitForTheReply(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, keepsReplies()...)
		var runs atomic.Int32
		release := make(chan struct{})
		require.NoError(t, ws.HandleOnly(s.Manager, "slow", func(*ws.Client) (*int32, error) {
			n := runs.Add(1)
			<-release
			return &n, nil
		}))
		require.NoError(t, ws.HandleOnly(s.Manager, "quick", func(*ws.Client) (*int, error) { return nil, nil }))
		first := s.Dial(w, "user=7")
		first.Send(idempotent("slow", "r", ""))
		harness.Eventually(t, func() bool { return runs.Load() == 1 }, "the handler did not run")
		first.Abort()
		a, b := s.Dial(w, "user=7"), s.Dial(otherWay(w), "user=7")
		for _, c := range []*harness.Client{a, b} {
			c.Send(idempotent("slow", "r", ""), idempotent("slow", "r", ""), harness.Request("quick", "q", ""))
			c.ExpectReply("q", 200, "success")
		}
		close(release)
		reply := string(a.Next().Payload)
		assert.Contains(t, reply, `"data":1`)
		b.Expect(reply)
		for _, c := range []*harness.Client{a, b} {
			c.Send(harness.Request("quick", "q", ""))
			c.ExpectReply("q", 200, "success") // and no second reply before it
		}
		assert.EqualValues(t, 1, runs.Load())
		assert.EqualValues(t, 4, s.Stats().Idempotency.Repeats)
	})
}

// A handler that has returned may answer later, with a client that is gone.
func TestLateRepliesAreKept(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode)...)
		clients := make(chan *ws.Client, 10)
		require.NoError(t, s.Register("job", func(c *ws.Client, _ *ws.Message) error { clients <- c; return nil }))
		require.NoError(t, ws.HandleOnly(s.Manager, "quick", func(*ws.Client) (*int, error) { return nil, nil }))
		gone := s.Events(ws.EventClientDisconnected)
		first := s.Dial(w, "username=ann")
		first.Send(idempotent("job", "r", ""))
		sc := harness.Receive(t, clients, "no request")
		first.Abort()
		harness.Receive(t, gone, "no disconnect")
		second := s.Dial(w, "username=ann")
		second.Send(idempotent("job", "r", ""), harness.Request("quick", "q", ""))
		second.ExpectReply("q", 200, "success")

		// A request of the same ID without the field is another request.
		third := s.Dial(w, "username=ann")
		third.Send(harness.Request("job", "r", ""))
		require.NoError(t, harness.Receive(t, clients, "no request").SendResponse("r", 200, "other", nil))
		third.ExpectReply("r", 200, "other")

		require.ErrorIs(t, sc.SendResponse("r", 200, "done", 5), ws.ErrConnectionClosed)
		assert.Equal(t, "5", second.ExpectReply("r", 200, "done"))
		third.Send(idempotent("job", "r", ""))
		assert.Equal(t, "5", third.ExpectReply("r", 200, "done"))
		assert.Empty(t, clients)
	})
}

// A user and a client ID of the same text are different owners; a client without either has none.
func TestRepliesOfOthers(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode)...)
		var runs atomic.Int32
		require.NoError(t, ws.HandleOnly(s.Manager, "count", func(*ws.Client) (*int32, error) {
			n := runs.Add(1)
			return &n, nil
		}))
		ask := func(want, query string) {
			t.Helper()
			c := s.Dial(w, query)
			c.Send(idempotent("count", "1", ""))
			assert.Equal(t, want, c.ExpectReply("1", 200, ""), query)
			c.SendClose(1000, "")
			c.ExpectClose(1000)
			c.ExpectEOF()
		}
		for i, query := range []string{"user=7", "user=8", "username=07", "id=7", "id=8", "id=user:7", "username=client:7"} {
			ask(strconv.Itoa(i+1), query)
		}
		ask("1", "username=7&id=x")
		ask("1", "user=7&id=8")
		ask("4", "id=7")
		ask("5", "id=8")
		assert.Zero(t, s.Stats().Idempotency.Unkept)
		ask("8", "")
		ask("9", "")
		c := s.Dial(w, "user=7")
		c.Send(idempotent("count", "", ""))
		assert.Equal(t, "10", c.ExpectReply("", 200, ""))
		c.Send(harness.Request("count", "1", ""))
		assert.Equal(t, "11", c.ExpectReply("1", 200, ""), "without the field")
		assert.EqualValues(t, 3, s.Stats().Idempotency.Unkept)
		assert.Equal(t, 7, s.Stats().Idempotency.Requests)
	})
}

// Without the option the field has no effect.
func TestIdempotencyIsOff(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	var runs atomic.Int32
	require.NoError(t, ws.Handle0(s.Manager, "count", func(*ws.Client, *int) error { runs.Add(1); return nil }))
	c := s.Dial(harness.Native, "user=7")
	for range 3 {
		c.Send(idempotent("count", "1", "1"))
		c.ExpectReply("1", 200, "success")
	}
	assert.EqualValues(t, 3, runs.Load())
	assert.Zero(t, s.Stats().Idempotency)
}

// Refusals before the handler are not kept, and middleware runs for repeats, too.
func TestRefusalsAreNotKept(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode, ws.WithRateLimit(ws.RateLimit{Messages: 1e-6, MessageBurst: 4}))...)
		var asked, runs atomic.Int32
		var allowed atomic.Bool
		require.NoError(t, s.Use(func(_ *ws.Client, _ *ws.Message, next ws.NextFunc) error {
			asked.Add(1)
			if !allowed.Load() {
				return ws.NewClientError(401, "not yet")
			}
			return errors.Join(next(), next()) // as a middleware that tries again
		}))
		require.NoError(t, ws.Handle0(s.Manager, "count", func(*ws.Client, *int) error { runs.Add(1); return nil }))
		c := s.Dial(w, "user=7")
		c.Send(idempotent("count", "1", "1"))
		c.ExpectReply("1", 401, "not yet")
		assert.Zero(t, s.Stats().Idempotency.Requests)
		allowed.Store(true)
		c.Send(idempotent("count", "1", "1"))
		first := string(c.Next().Payload)
		assert.Contains(t, first, `"code":200`)
		second := string(c.Next().Payload) // two calls of the handler of Handle0 are two replies
		assert.Contains(t, second, `"code":200`)
		assert.EqualValues(t, 2, runs.Load(), "the middleware runs it twice")
		c.Send(idempotent("count", "1", "1"))
		c.Expect(first)
		allowed.Store(false)
		c.Send(idempotent("count", "1", "1"))
		c.ExpectReply("1", 401, "not yet")
		assert.EqualValues(t, 4, asked.Load())

		c.Send(idempotent("count", "2", "1")) // beyond the burst
		c.ExpectReply("2", 429, "too many requests")
		allowed.Store(true)
		c = s.Dial(w, "user=7")
		c.Send(idempotent("count", "2", "1"))
		c.ExpectReply("2", 200, "success")
		c.ExpectReply("2", 200, "success")
		assert.EqualValues(t, 4, runs.Load())
		c.Send(idempotent("unknown", "3", "1"))
		c.ExpectReply("3", 404, "handler not found")
		assert.Equal(t, 2, s.Stats().Idempotency.Requests)
	})
}

// A user who has too many requests without a reply is refused, and nobody else is.
func TestSpaceForReplies(t *testing.T) {
	s := harness.Start(t, keepsReplies(ws.WithIdempotencyBytes(1<<20, 2000))...)
	clients := make(chan *ws.Client, 10)
	require.NoError(t, s.Register("job", func(c *ws.Client, _ *ws.Message) error { clients <- c; return nil }))
	require.NoError(t, ws.Handle(s.Manager, "echo", func(_ *ws.Client, in *string) (*string, error) { return in, nil }))
	a, b := s.Dial(harness.Native, "user=1"), s.Dial(harness.NetHTTP, "user=2")
	a.Send(idempotent("job", "1", ""), idempotent("job", "2", ""), idempotent("job", "3", ""), idempotent("job", "4", ""))
	a.ExpectReply("4", 503, "too many idempotent requests")
	b.Send(idempotent("echo", "4", `"b"`))
	b.ExpectReply("4", 200, "success")
	require.NoError(t, harness.Receive(t, clients, "no request").SendResponse("1", 200, "done", nil))
	a.ExpectReply("1", 200, "done")
	a.Send(idempotent("job", "4", ""))          // evicts 1
	harness.Receive(t, clients, "no request 2") // and 3
	harness.Receive(t, clients, "no request 3")
	harness.Receive(t, clients, "no request 4")
	assert.EqualValues(t, 1, s.Stats().Idempotency.Evicted)
	assert.EqualValues(t, 1, s.Stats().Idempotency.Refused)

	b.Send(idempotent("echo", "5", `"`+strings.Repeat("x", 2000)+`"`))
	b.ExpectReply("5", 200, "success")
	b.Send(idempotent("echo", "5", `"`+strings.Repeat("x", 2000)+`"`))
	b.ExpectReply("5", 410, "the reply was too large to keep")
}

// The context of a client that comes back does not end while its idempotent request is handled.
func TestContextOfAnIdempotentRequest(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, keepsReplies()...)
		type call struct {
			c       *ws.Client
			ctx     context.Context
			release chan struct{}
		}
		calls := make(chan call, 1)
		require.NoError(t, ws.HandleOnly(s.Manager, "slow", func(c *ws.Client) (*bool, error) {
			x := call{c, c.Context(), make(chan struct{})}
			calls <- x
			<-x.release
			ended := c.Context().Err() != nil
			return &ended, nil
		}))
		gone := s.Events(ws.EventClientDisconnected)
		for message, ends := range map[string]bool{
			idempotent("slow", "1", ""): false, harness.Request("slow", "2", ""): true,
		} {
			c := s.Dial(w, "username=ann")
			c.Send(message)
			x := harness.Receive(t, calls, "no call")
			require.NoError(t, x.ctx.Err())
			c.Abort()
			harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the connection did not end")
			assert.Equal(t, ends, x.ctx.Err() != nil)
			close(x.release)
			harness.Receive(t, gone, "no disconnect")
			harness.Eventually(t, func() bool { return x.ctx.Err() != nil }, "the context did not end with the handler")
			assert.Error(t, x.c.Context().Err())
			assert.Equal(t, "ann", x.c.User())
		}
		c := s.Dial(w, "username=ann")
		c.Send(idempotent("slow", "1", ""))
		assert.Equal(t, "false", c.ExpectReply("1", 200, ""))
	})
}

// The reply is forgotten after the window, on the clock of the engine.
func TestRepliesEndWithTheWindow(t *testing.T) {
	network := wstest.NewNetwork(t)
	m, err := ws.NewManager(network.Option(), ws.WithIdempotency(2*time.Minute),
		ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithUser("ann")}, nil
		}))
	require.NoError(t, err)
	var runs atomic.Int32
	require.NoError(t, ws.HandleOnly(m, "count", func(*ws.Client) (*int32, error) {
		n := runs.Add(1)
		return &n, nil
	}))
	s := network.Start(m)
	ask := func() string {
		c := s.Dial(nil)
		defer c.Close()
		c.Send(idempotent("count", "1", ""))
		return c.Next()
	}
	first := ask()
	assert.Equal(t, first, ask())
	network.Advance(119 * time.Second)
	assert.Equal(t, first, ask(), "a repeat does not extend the window")
	network.Advance(2 * time.Second)
	assert.Contains(t, ask(), `"data":2`)
}

// Shutdown does not wait for those who wait for a reply.
func TestShutdownWithRepeats(t *testing.T) {
	s := harness.Start(t, keepsReplies()...)
	clients := make(chan *ws.Client, 1)
	require.NoError(t, s.Register("job", func(c *ws.Client, _ *ws.Message) error { clients <- c; return nil }))
	a, b := s.Dial(harness.Native, "user=1"), s.Dial(harness.NetHTTP, "user=1")
	a.Send(idempotent("job", "1", ""))
	sc := harness.Receive(t, clients, "no request")
	b.Send(idempotent("job", "1", ""))
	harness.Eventually(t, func() bool { return s.Stats().Idempotency.Repeats == 1 }, "no repeat")
	done := make(chan struct{})
	go func() { defer close(done); s.Stop() }()
	for _, c := range []*harness.Client{a, b} {
		c.ExpectClose(1001)
		c.Finish(1001)
	}
	harness.Receive(t, done, "no end")
	require.ErrorIs(t, sc.SendResponse("1", 200, "", nil), ws.ErrConnectionClosed)
}

// Thousands of repeats of one request at once, on many connections of one user: the handler runs
// once, and everybody reads the same bytes.
func TestStormOfRepeats(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode)...)
		var runs atomic.Int32
		require.NoError(t, ws.HandleOnly(s.Manager, "count", func(*ws.Client) (*int32, error) {
			n := runs.Add(1)
			return &n, nil
		}))
		require.NoError(t, ws.HandleOnly(s.Manager, "end", func(*ws.Client) (*int, error) { return nil, nil }))
		const conns, repeats = 20, 100
		storm := make([]string, repeats, repeats+1)
		for i := range storm {
			storm[i] = idempotent("count", "1", "")
		}
		storm = append(storm, harness.Request("end", "end", ""))
		replies := make([]map[string]bool, conns)
		var all sync.WaitGroup
		for i := range conns {
			c := s.Dial(w, "user=7")
			replies[i] = make(map[string]bool)
			all.Go(func() {
				c.Send(storm...)
				for ended := false; !ended || len(replies[i]) == 0; {
					text := string(c.Next().Payload)
					if strings.Contains(text, `"request_id":"end"`) {
						ended = true
					} else {
						replies[i][text] = true
					}
				}
			})
		}
		all.Wait()
		assert.EqualValues(t, 1, runs.Load())
		for i := range conns {
			assert.Equal(t, replies[0], replies[i])
			assert.Len(t, replies[i], 1)
		}
		assert.EqualValues(t, conns*repeats-1, s.Stats().Idempotency.Repeats)
	})
}

// Users ask at random, lose their connections and repeat: no request runs twice, and all replies
// to it are the same.
func TestRandomRepeats(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, keepsReplies(mode)...)
		const users, devices, requests, steps = 3, 3, 20, 60
		var runs [users][requests]atomic.Int32
		require.NoError(t, ws.Handle(s.Manager, "count", func(c *ws.Client, n *int) (*int64, error) {
			runs[c.UserID-1][*n].Add(1)
			out := rand.Int64()
			return &out, nil
		}))
		var mu sync.Mutex
		var replies [users][requests]string
		ask := func(c *harness.Client, u, n int) {
			c.Send(idempotent("count", strconv.Itoa(n), strconv.Itoa(n)))
			text := string(c.Next().Payload)
			mu.Lock()
			defer mu.Unlock()
			if replies[u][n] == "" {
				replies[u][n] = text
			}
			assert.Equal(t, replies[u][n], text)
		}
		var all sync.WaitGroup
		for d := range users * devices {
			u := d % users
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(d), 3))
				ways := []harness.Way{w, otherWay(w)}
				c := s.Dial(w, "user="+strconv.Itoa(u+1))
				for range steps {
					n := r.IntN(requests)
					if r.IntN(4) > 0 {
						ask(c, u, n)
						continue
					}
					c.Send(idempotent("count", strconv.Itoa(n), strconv.Itoa(n)))
					c.Abort()
					c = s.Dial(ways[r.IntN(2)], "user="+strconv.Itoa(u+1))
					ask(c, u, n)
				}
			})
		}
		all.Wait()
		for u := range users {
			c := s.Dial(w, "user="+strconv.Itoa(u+1))
			for n := range requests {
				ask(c, u, n)
				assert.EqualValues(t, 1, runs[u][n].Load(), "user %d, request %d", u, n)
			}
		}
	})
}

// A request without the field costs nothing more with the option than without.
func TestIdempotencyCostsOthersNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	allocations := func(opts ...ws.Option) float64 {
		m := harness.NewManager(t, opts...)
		require.NoError(t, ws.Handle(m, "typed", func(_ *ws.Client, in *int) (*int, error) { return in, nil }))
		require.NoError(t, m.Register("plain", func(c *ws.Client, msg *ws.Message) error {
			return c.SendResponse(msg.RequestID, 200, "", nil)
		}))
		c := ws.NewTestClient(m)
		messages := [][]byte{[]byte(harness.Request("typed", "1", "1")), []byte(harness.Request("plain", "1", "1"))}
		return testing.AllocsPerRun(1000, func() {
			for _, msg := range messages {
				ws.HandleMessage(c, msg)
			}
		})
	}
	assert.InDelta(t, allocations(), allocations(ws.WithIdempotency(time.Hour)), 0.5)
}
