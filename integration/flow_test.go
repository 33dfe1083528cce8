package integration_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// mostHeld samples the bytes held of paused connections until stop is called.
func mostHeld(s *harness.Server) (stop func() int64) {
	end, most := make(chan struct{}), make(chan int64)
	go func() {
		var held int64
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				most <- held
				return
			case <-tick.C:
				held = max(held, s.Stats().Total.HeldBytes)
			}
		}
	}()
	return func() int64 { close(end); return <-most }
}

// maxRead is the most that one read leaves undecoded: gnet's buffer, and a TLS record whose first
// part came before.
const maxRead = 64<<10 + 17<<10

type ordered struct {
	N int `json:"n"`
}

// burstOf encodes n requests of about 100 bytes, numbered.
func burstOf(event string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(harness.Frame(gobwas.OpText,
			fmt.Sprintf(`{"type":"request","event":%q,"request_id":"%d","data":{"n":%d},"timestamp":1707552000}`, event, i, i)))
	}
	return b.String()
}

// A client that pipelines many requests, as one does that sends its offline queue
// after a reconnect, is answered in order and never closed, with the defaults.
func TestFlowBurst(t *testing.T) {
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		n := harness.FewerUnderRace(30_000)
		if s.Way == harness.Native && s.Wrap == nil {
			n = harness.FewerUnderRace(100_000)
		}
		require.NoError(t, ws.Handle(s.Manager, "noop",
			func(_ *ws.Client, req *ordered) (*ordered, error) { return req, nil }))
		c := s.Connect()
		most := mostHeld(s.Server)
		wait := c.WriteInBackground(burstOf("noop", n))
		for i := range n {
			require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), c.ExpectReply(strconv.Itoa(i), 200, ""))
		}
		wait()
		assert.LessOrEqual(t, most(), int64(maxRead))
		harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
	})
}

// The same with a handler that takes its time.
func TestFlowSlowHandler(t *testing.T) {
	t.Parallel()
	n := 1000
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		require.NoError(t, ws.Handle(s.Manager, "slow", func(_ *ws.Client, req *ordered) (*ordered, error) {
			<-time.After(time.Millisecond) // the handler's work
			return req, nil
		}))
		c := s.Connect()
		wait := c.WriteInBackground(burstOf("slow", n))
		for i := range n {
			c.ExpectReply(strconv.Itoa(i), 200, "")
		}
		wait()
		assert.Positive(t, s.Stats().Total.PausedTotal)
	})
}

// An upload faster than its handler arrives whole and in order, and waits in the
// client's own socket.
func TestFlowUpload(t *testing.T) {
	const chunk = 16 << 10
	harness.OnEachTransportAndMode(t, func(t *testing.T, mode ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		total := 16 << 20
		if s.Way == harness.Native && s.Wrap == nil && mode == ws.Pooled {
			total = 100 << 20
		}
		chunks := harness.FewerUnderRace(total / chunk)
		next := uint32(0)
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, p []byte) {
			if n := binary.BigEndian.Uint32(p); n != next || len(p) != chunk {
				c.CloseWithCode(4000, fmt.Sprintf("chunk %d of %d bytes, want %d", n, len(p), next))
				return
			}
			next++
			if int(next) == chunks {
				assert.NoError(t, c.SendBytes([]byte("all")))
			}
		})
		c := s.Connect()
		most := mostHeld(s.Server)
		payload := make([]byte, chunk)
		for i := range chunks {
			binary.BigEndian.PutUint32(payload, uint32(i))
			c.WriteRaw(harness.Frame(gobwas.OpBinary, string(payload)))
		}
		c.Expect("all")
		assert.LessOrEqual(t, most(), int64(maxRead))
	})
}

// One message that is allowed is taken, whatever MailboxBytes.
func TestFlowLargeMessage(t *testing.T) {
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithMessageSizeLimit(32<<20), ws.WithQueueBytes(64<<20))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, p []byte) { assert.NoError(t, c.SendBytes(fmt.Append(nil, len(p)))) })
		for range 5 {
			c := s.Connect()
			big := harness.Frame(gobwas.OpText, strings.Repeat("x", 2<<20))
			wait := c.WriteInBackground(big + harness.Frame(gobwas.OpText, "done") + big + harness.Frame(gobwas.OpText, "again"))
			c.Expect(strconv.Itoa(2<<20), "4", strconv.Itoa(2<<20), "5")
			wait()
		}
	})
}

// Answers are not lost to a client that pipelines requests and reads, nor skipped
// for one that reads late, whatever the policy and whatever else is sent to it.
func TestFlowAnswers(t *testing.T) {
	const requests = 60
	for name, policy := range map[string]ws.OverflowPolicy{"DropNewest": ws.DropNewest, "DropOldest": ws.DropOldest} {
		t.Run(name, func(t *testing.T) {
			harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
				s := start(ws.WithOverflowPolicy(policy))
				require.NoError(t, ws.Handle(s.Manager, "get", func(c *ws.Client, req *ordered) (*string, error) {
					answer := strings.Repeat("a", 32<<10<<(req.N%3))
					if req.N%10 == 9 {
						return nil, ws.NewClientError(418, answer)
					}
					return &answer, nil
				}))
				require.NoError(t, ws.Handle0(s.Manager, "join", func(c *ws.Client, _ *ordered) error { return c.JoinRoom("r") }))
				c := s.Connect()
				c.Send(harness.Request("join", "join", ""))
				c.ExpectReply("join", 200, "")
				wait := c.WriteInBackground(burstOf("get", requests))
				harness.Eventually(t, func() bool { return s.Stats().Total.BlockedTotal > 0 }, "the socket did not fill")
				for range 500 { // more than the queue takes beside the answers
					require.NoError(t, s.BroadcastToRoom("r", []byte(`{"type":"notify"}`), nil))
				}
				for i := 0; i < requests; {
					e := c.ReadEnvelope()
					if e.Type == "notify" {
						continue
					}
					require.Equal(t, strconv.Itoa(i), e.RequestID)
					i++
				}
				wait()
			})
		})
	}
}

// A client that never reads its answers waits with its requests, and costs a
// bounded amount.
func TestFlowUnreadAnswers(t *testing.T) {
	t.Parallel()
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		var handled atomic.Int64
		require.NoError(t, ws.Handle(s.Manager, "get", func(*ws.Client, *ordered) (*string, error) {
			handled.Add(1)
			answer := strings.Repeat("a", 64<<10)
			return &answer, nil
		}))
		c := s.Connect()
		_ = c.WriteInBackground(burstOf("get", 20_000)) // does not end: the client waits
		harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 && s.Stats().Total.BlockedTotal > 0 },
			"not paused")
		last, since := int64(-1), 0
		harness.Eventually(t, func() bool { // polls every millisecond
			if n := handled.Load(); n != last {
				last, since = n, 0
			}
			since++
			return since == 50
		}, "the handlers do not stand still")
		queued := 0
		s.RangeClients(func(sc *ws.Client) bool { queued = sc.QueuedBytes(); return true })
		assert.Less(t, queued, 1<<20+3*64<<10, "QueueBytes and the answers of one message")
		assert.Less(t, handled.Load(), int64(1000))
		assert.NoError(t, c.Close())
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		harness.Eventually(t, func() bool { return s.Stats().Total.HeldBytes == 0 }, "bytes are counted for ever")
	})
}

// A handler that sends a history to a client that reads loses nothing: the bound
// is the queue itself, not how far the handler is ahead of the event loop.
func TestFlowHistory(t *testing.T) {
	const messages = 1000
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		require.NoError(t, ws.Handle0(s.Manager, "history", func(c *ws.Client, _ *ordered) error {
			for i := range messages {
				if err := c.SendBytes(fmt.Append(nil, i)); err != nil {
					return err
				}
			}
			return nil
		}))
		c := s.Connect()
		for range 10 {
			c.Send(harness.Request("history", "1", ""))
			for i := range messages {
				c.Expect(strconv.Itoa(i))
			}
			c.ExpectReply("1", 200, "")
		}
		assert.Zero(t, s.Stats().Total.Drops.Full)
	})
}

// SendContext waits for a client that does not read yet.
func TestFlowSendContext(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMessageQueueSize(4), harness.WithDeepQueue)
		c, sc := s.DialClient(w)
		s.Stall(sc)
		const messages = 50
		sent := make(chan error, 1)
		go func() {
			for i := range messages {
				if err := sc.SendContext(t.Context(), fmt.Append(nil, i)); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		harness.Eventually(t, func() bool { return errors.Is(sc.SendBytes(nil), ws.ErrChannelFull) },
			"the queue does not fill")
		require.ErrorIs(t, sc.SendContext(ctx, []byte("late")), context.DeadlineExceeded)
		require.Empty(t, sent)
		c.Expect(harness.BigMessage)
		for i := 0; i < messages; {
			if p := c.Next().Payload; len(p) > 0 {
				require.Equal(t, strconv.Itoa(i), string(p))
				i++
			}
		}
		require.NoError(t, harness.Receive(t, sent, "SendContext"))

		s.Stall(sc)
		for sc.SendBytes([]byte("fill")) == nil {
		}
		go func() { sent <- sc.SendContext(context.Background(), []byte("nobody")) }()
		require.NoError(t, c.Close())
		require.ErrorIs(t, harness.Receive(t, sent, "SendContext"), ws.ErrConnectionClosed)
	})
}

// On an event loop SendContext does not wait.
func TestFlowSendContextInline(t *testing.T) {
	s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithMessageQueueSize(4), harness.WithDeepQueue,
		ws.WithLoops(1))
	result := make(chan error, 1)
	_, stalled := s.DialClient(harness.Native)
	s.Stall(stalled)
	s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		var err error
		for err == nil {
			err = stalled.SendContext(context.Background(), []byte("x"))
		}
		result <- err
	})
	s.Dial(harness.Native).Send("go")
	require.ErrorIs(t, harness.Receive(t, result, "the handler"), ws.ErrChannelFull)
}

// A client's context ends with its connection, and with Shutdown.
func TestFlowContext(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		c, sc := s.DialClient(w)
		ctx := sc.Context()
		require.NoError(t, ctx.Err())
		require.Equal(t, ctx, sc.Context())
		require.NoError(t, c.Close())
		harness.Receive(t, ctx.Done(), "the connection has ended")
		require.Error(t, sc.Context().Err())

		_, other := s.DialClient(w)
		ctx = other.Context()
		go s.Stop()
		harness.Receive(t, ctx.Done(), "Shutdown")
	})
}

// Clients of other routes wait while handlers that block take all workers, and
// none is closed. A route with a pool of its own does not wait.
func TestFlowPools(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithWorkers(4))
		entered, release := harness.RegisterBlock(t, s.Manager)
		noop := func(*ws.Client, *ordered) error { return nil }
		own := ws.NewPool(1)
		require.NoError(t, ws.Handle0(s.Manager, "shared", noop))
		require.NoError(t, ws.Handle0(s.Manager, "own", noop, ws.RunOn(own)))
		require.NoError(t, ws.Handle0(s.Manager, "own too", noop, ws.RunOn(own)))
		var blocking []*harness.Client
		for range 6 {
			c := s.Connect()
			c.Send(strings.Split(strings.TrimSuffix(strings.Repeat(harness.BlockMessage(1)+"\n", 100), "\n"), "\n")...)
			blocking = append(blocking, c)
		}
		for range 4 {
			harness.Receive(t, entered, "not called")
		}
		healthy, apart := s.Connect(), s.Connect()
		const each = 200
		wait := healthy.WriteInBackground(burstOf("shared", each))
		for i := range each {
			apart.Send(harness.Request([]string{"own", "own too"}[i%2], "1", ""))
			apart.ExpectReply("1", 200, "")
		}
		release()
		for i := range each {
			healthy.ExpectReply(strconv.Itoa(i), 200, "")
		}
		wait()
		for _, c := range blocking {
			for range 100 {
				c.ExpectReply("1", 200, "")
			}
		}
	})
}

// One client's messages are handled in order, on whichever pool.
func TestFlowPoolsKeepOrder(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		var next atomic.Int64
		step := func(_ *ws.Client, req *ordered) error {
			if !next.CompareAndSwap(int64(req.N), int64(req.N)+1) {
				return ws.NewClientError(409, fmt.Sprint("out of order: ", req.N))
			}
			return nil
		}
		events := []string{"default", "inline", "a", "b"}
		opts := []ws.RouteOption{ws.RunPooled(), ws.RunInline(), ws.RunOn(ws.NewPool(2)), ws.RunOn(ws.NewPool(2))}
		for i, event := range events {
			require.NoError(t, ws.Handle0(s.Manager, event, step, opts[i]))
		}
		c := s.Dial(w)
		n := harness.FewerUnderRace(20_000)
		var burst strings.Builder
		for i := range n {
			event := events[(i*7+i/3)%len(events)]
			burst.WriteString(harness.Frame(gobwas.OpText, harness.Request(event, strconv.Itoa(i), fmt.Sprintf(`{"n":%d}`, i))))
		}
		wait := c.WriteInBackground(burst.String())
		for i := range n {
			c.ExpectReply(strconv.Itoa(i), 200, "")
		}
		wait()
	})
}

// A handler that is late is logged once, with its stack.
func TestFlowLogAfter(t *testing.T) {
	for name, mode := range map[string]ws.RouteOption{"pooled": ws.RunPooled(), "inline": ws.RunInline()} {
		t.Run(name, func(t *testing.T) {
			var log harness.Buffer
			s := harness.Start(t, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			release := make(chan struct{})
			require.NoError(t, ws.Handle0(s.Manager, "late", func(*ws.Client, *ordered) error {
				theHandlerThatIsLate(release)
				return nil
			}, mode, ws.LogAfter(10*time.Millisecond)))
			c := s.Dial(harness.Native)
			c.Send(harness.Request("late", "1", ""))
			harness.Eventually(t, func() bool { return strings.Contains(log.String(), "theHandlerThatIsLate") },
				"no stack in %s", log.String())
			assert.Contains(t, log.String(), "event=late")
			assert.EqualValues(t, 1, s.Stats().LateHandlers)
			close(release)
			c.ExpectReply("1", 200, "")
		})
	}
}

//go:noinline
func theHandlerThatIsLate(release <-chan struct{}) { <-release }

// Messages that inline handlers publish while a ring is full are not refused: they arrive in each
// publisher's order, and the publishers' connections wait.
func TestFlowInlinePublishers(t *testing.T) {
	const publishers, members = 10, 6
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithHandlerMode(ws.Inline), func(c *ws.Config) {
			c.Broadcast.QueueSize, c.MessageQueueSize = 8, 1<<20
		}, harness.WithDeepQueue)
		each := harness.FewerUnderRace(2000)
		release := make(chan struct{})
		held := make(chan struct{}, 1)
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, p []byte) {
			switch string(p) {
			case "join":
				assert.NoError(t, c.JoinRoom("r"))
				assert.NoError(t, c.SendBytes([]byte("joined")))
			case "hold":
				held <- struct{}{}
				<-release
			default:
				assert.NoError(t, s.BroadcastToRoom("r", p, nil))
			}
		})
		var joined []*harness.Client
		for range members {
			c := s.Connect()
			c.Send("join")
			c.Expect("joined")
			joined = append(joined, c)
		}
		var sources []*harness.Client
		for range publishers {
			sources = append(sources, s.Connect())
		}
		s.Connect().Send("hold") // one loop is busy for a while
		harness.Receive(t, held, "not held")
		var writers sync.WaitGroup
		for p, c := range sources {
			var burst strings.Builder
			for i := range each {
				burst.WriteString(harness.Frame(gobwas.OpText, fmt.Sprintf("%d %d", p, i)))
			}
			wait := c.WriteInBackground(burst.String())
			writers.Go(wait)
		}
		close(release)
		for _, c := range joined {
			var next [publishers]int
			for range publishers * each {
				var p, i int
				_, err := fmt.Sscan(string(c.Next().Payload), &p, &i)
				require.NoError(t, err)
				require.Equal(t, next[p], i, "publisher %d", p)
				next[p]++
			}
		}
		writers.Wait()
		assert.Zero(t, s.Stats().Total.Drops.Full)
		harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
	})
}
