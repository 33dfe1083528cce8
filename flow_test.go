package ws_test

import (
	"context"
	"crypto/tls"
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

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/race"
)

// flowServer is a server on one way, with or without TLS.
type flowServer struct {
	*server
	way  way
	wrap func(*client) *client // TLS, or nil
}

// connect dials and upgrades.
func (s *flowServer) connect() *client {
	s.t.Helper()
	if s.wrap == nil {
		return s.dial(s.way)
	}
	c := s.wrap(s.dialTCP(s.way))
	c.raw(upgradeRequest("/ws", ""))
	resp, body := c.response()
	require.Equal(s.t, 101, resp.StatusCode, body)
	return c
}

// onEachTransport runs test on both ways, plain and with TLS.
func onEachTransport(t *testing.T, test func(t *testing.T, start func(opts ...ws.Option) *flowServer)) {
	t.Helper()
	onBothWays(t, func(t *testing.T, w way) {
		t.Run("plain", func(t *testing.T) {
			test(t, func(opts ...ws.Option) *flowServer { return &flowServer{start(t, opts...), w, nil} })
		})
		t.Run("TLS", func(t *testing.T) {
			test(t, func(opts ...ws.Option) *flowServer {
				s := startTLS(t, nil, opts...)
				wrap := func(c *client) *client { return c.over(s.clientTLS(tls.VersionTLS13)) }
				return &flowServer{s.server, w, wrap}
			})
		})
	})
}

// onEachTransportAndMode runs test with pooled and with inline handlers, too.
func onEachTransportAndMode(t *testing.T, test func(t *testing.T, mode ws.HandlerMode, start func(opts ...ws.Option) *flowServer)) {
	t.Helper()
	for name, mode := range map[string]ws.HandlerMode{"pooled": ws.Pooled, "inline": ws.Inline} {
		t.Run(name, func(t *testing.T) {
			onEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *flowServer) {
				test(t, mode, func(opts ...ws.Option) *flowServer {
					return start(append([]ws.Option{ws.WithHandlerMode(mode)}, opts...)...)
				})
			})
		})
	}
}

// fewerUnderRace returns n, or a tenth of it under the race detector.
func fewerUnderRace(n int) int {
	if race.Enabled {
		return n / 10
	}
	return n
}

// writeInBackground writes b and returns a function that waits for the end.
func (c *client) writeInBackground(b string) (wait func()) {
	done := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(b))
		done <- err
	}()
	return func() {
		c.t.Helper()
		require.NoError(c.t, receive(c.t, done, "the write did not end"))
	}
}

// mostHeld samples the bytes held of paused connections until stop is called.
func (s *server) mostHeld() (stop func() int64) {
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

// maxRead is the most that one read leaves undecoded: gnet's buffer, and a TLS
// record of which a part came before.
const maxRead = 64<<10 + 17<<10

type ordered struct {
	N int `json:"n"`
}

// burstOf encodes n requests of about 100 bytes, numbered.
func burstOf(event string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(frame(gws.OpText, fmt.Sprintf(`{"type":"request","event":%q,"request_id":"%d","data":{"n":%d},"timestamp":1707552000}`, event, i, i)))
	}
	return b.String()
}

// A client that pipelines many requests, as one does that sends its offline queue
// after a reconnect, is answered in order and never closed, with the defaults.
func TestFlowBurst(t *testing.T) {
	onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *flowServer) {
		s := start()
		n := fewerUnderRace(30_000)
		if s.way == native && s.wrap == nil {
			n = fewerUnderRace(100_000)
		}
		require.NoError(t, ws.Handle(s.Manager, "noop", func(_ *ws.Client, req *ordered) (*ordered, error) { return req, nil }))
		c := s.connect()
		most := s.mostHeld()
		wait := c.writeInBackground(burstOf("noop", n))
		for i := range n {
			require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), c.expectReply(strconv.Itoa(i), 200, ""))
		}
		wait()
		assert.LessOrEqual(t, most(), int64(maxRead))
		assert.Zero(t, s.Stats().Total.Paused)
	})
}

// The same with a handler that takes its time.
func TestFlowSlowHandler(t *testing.T) {
	n := 1000
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start()
		require.NoError(t, ws.Handle(s.Manager, "slow", func(_ *ws.Client, req *ordered) (*ordered, error) {
			<-time.After(time.Millisecond) // the handler's work
			return req, nil
		}))
		c := s.connect()
		wait := c.writeInBackground(burstOf("slow", n))
		for i := range n {
			c.expectReply(strconv.Itoa(i), 200, "")
		}
		wait()
		assert.Positive(t, s.Stats().Total.PausedTotal)
	})
}

// An upload faster than its handler arrives whole and in order, and waits in the
// client's own socket.
func TestFlowUpload(t *testing.T) {
	const chunk = 16 << 10
	onEachTransportAndMode(t, func(t *testing.T, mode ws.HandlerMode, start func(...ws.Option) *flowServer) {
		s := start()
		total := 16 << 20
		if s.way == native && s.wrap == nil && mode == ws.Pooled {
			total = 100 << 20
		}
		chunks := fewerUnderRace(total / chunk)
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
		c := s.connect()
		most := s.mostHeld()
		payload := make([]byte, chunk)
		for i := range chunks {
			binary.BigEndian.PutUint32(payload, uint32(i))
			c.raw(frame(gws.OpBinary, string(payload)))
		}
		c.expect("all")
		assert.LessOrEqual(t, most(), int64(maxRead))
	})
}

// One message that is allowed is taken, whatever MailboxBytes.
func TestFlowLargeMessage(t *testing.T) {
	onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *flowServer) {
		s := start(ws.WithMessageSizeLimit(32<<20), ws.WithQueueBytes(64<<20))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, p []byte) { assert.NoError(t, c.SendBytes(fmt.Append(nil, len(p)))) })
		for range 5 {
			c := s.connect()
			big := frame(gws.OpText, strings.Repeat("x", 2<<20))
			wait := c.writeInBackground(big + frame(gws.OpText, "done") + big + frame(gws.OpText, "again"))
			c.expect(strconv.Itoa(2<<20), "4", strconv.Itoa(2<<20), "5")
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
			onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *flowServer) {
				s := start(ws.WithOverflowPolicy(policy))
				require.NoError(t, ws.Handle(s.Manager, "get", func(c *ws.Client, req *ordered) (*string, error) {
					answer := strings.Repeat("a", 32<<10<<(req.N%3))
					if req.N%10 == 9 {
						return nil, ws.NewClientError(418, answer)
					}
					return &answer, nil
				}))
				require.NoError(t, ws.Handle0(s.Manager, "join", func(c *ws.Client, _ *ordered) error { return c.JoinRoom("r") }))
				c := s.connect()
				c.send(request("join", "join", ""))
				c.expectReply("join", 200, "")
				wait := c.writeInBackground(burstOf("get", requests))
				eventually(t, func() bool { return s.Stats().Total.BlockedTotal > 0 }, "the socket did not fill")
				for range 500 { // more than the queue takes beside the answers
					require.NoError(t, s.BroadcastToRoom("r", []byte(`{"type":"notify"}`), nil))
				}
				for i := 0; i < requests; {
					e := c.readEnvelope()
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
	onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *flowServer) {
		s := start()
		var handled atomic.Int64
		require.NoError(t, ws.Handle(s.Manager, "get", func(*ws.Client, *ordered) (*string, error) {
			handled.Add(1)
			answer := strings.Repeat("a", 64<<10)
			return &answer, nil
		}))
		c := s.connect()
		_ = c.writeInBackground(burstOf("get", 20_000)) // does not end: the client waits
		eventually(t, func() bool { return s.Stats().Total.Paused == 1 && s.Stats().Total.BlockedTotal > 0 }, "not paused")
		last, since := int64(-1), 0
		eventually(t, func() bool { // polls every millisecond
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
		eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		assert.Zero(t, s.Stats().Total.HeldBytes)
	})
}

// A handler that sends a history to a client that reads loses nothing: the bound
// is the queue itself, not how far the handler is ahead of the event loop.
func TestFlowHistory(t *testing.T) {
	const messages = 1000
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start()
		require.NoError(t, ws.Handle0(s.Manager, "history", func(c *ws.Client, _ *ordered) error {
			for i := range messages {
				if err := c.SendBytes(fmt.Append(nil, i)); err != nil {
					return err
				}
			}
			return nil
		}))
		c := s.connect()
		for range 10 {
			c.send(request("history", "1", ""))
			for i := range messages {
				c.expect(strconv.Itoa(i))
			}
			c.expectReply("1", 200, "")
		}
		assert.Zero(t, s.Stats().Total.Drops.Full)
	})
}

// SendContext waits for a client that does not read yet.
func TestFlowSendContext(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithMessageQueueSize(4), withDeepQueue)
		c, sc := s.dialClient(w)
		s.stall(sc)
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
		eventually(t, func() bool { return errors.Is(sc.SendBytes(nil), ws.ErrChannelFull) }, "the queue does not fill")
		require.ErrorIs(t, sc.SendContext(ctx, []byte("late")), context.DeadlineExceeded)
		require.Empty(t, sent)
		c.expect(bigMessage)
		for i := 0; i < messages; {
			if p := c.read().Payload; len(p) > 0 {
				require.Equal(t, strconv.Itoa(i), string(p))
				i++
			}
		}
		require.NoError(t, receive(t, sent, "SendContext"))

		s.stall(sc)
		for sc.SendBytes([]byte("fill")) == nil {
		}
		go func() { sent <- sc.SendContext(context.Background(), []byte("nobody")) }()
		require.NoError(t, c.Close())
		require.ErrorIs(t, receive(t, sent, "SendContext"), ws.ErrConnectionClosed)
	})
}

// On an event loop SendContext does not wait.
func TestFlowSendContextInline(t *testing.T) {
	s := start(t, ws.WithHandlerMode(ws.Inline), ws.WithMessageQueueSize(4), withDeepQueue, ws.WithLoops(1))
	result := make(chan error, 1)
	_, stalled := s.dialClient(native)
	s.stall(stalled)
	s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		var err error
		for err == nil {
			err = stalled.SendContext(context.Background(), []byte("x"))
		}
		result <- err
	})
	s.dial(native).send("go")
	require.ErrorIs(t, receive(t, result, "the handler"), ws.ErrChannelFull)
}

// A client's context ends with its connection, and with Shutdown.
func TestFlowContext(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		c, sc := s.dialClient(w)
		ctx := sc.Context()
		require.NoError(t, ctx.Err())
		require.Equal(t, ctx, sc.Context())
		require.NoError(t, c.Close())
		receive(t, ctx.Done(), "the connection has ended")
		require.Error(t, sc.Context().Err())

		_, other := s.dialClient(w)
		ctx = other.Context()
		go s.shutdown()
		receive(t, ctx.Done(), "Shutdown")
	})
}

// Clients of other routes wait while handlers that block take all workers, and
// none is closed. A route with a pool of its own does not wait.
func TestFlowPools(t *testing.T) {
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start(ws.WithWorkers(4))
		entered, release := registerBlock(t, s.Manager)
		noop := func(*ws.Client, *ordered) error { return nil }
		own := ws.NewPool(1)
		require.NoError(t, ws.Handle0(s.Manager, "shared", noop))
		require.NoError(t, ws.Handle0(s.Manager, "own", noop, ws.RunOn(own)))
		require.NoError(t, ws.Handle0(s.Manager, "own too", noop, ws.RunOn(own)))
		var blocking []*client
		for range 6 {
			c := s.connect()
			c.send(strings.Split(strings.TrimSuffix(strings.Repeat(blockMessage(1)+"\n", 100), "\n"), "\n")...)
			blocking = append(blocking, c)
		}
		for range 4 {
			receive(t, entered, "not called")
		}
		healthy, apart := s.connect(), s.connect()
		const each = 200
		wait := healthy.writeInBackground(burstOf("shared", each))
		for i := range each {
			apart.send(request([]string{"own", "own too"}[i%2], "1", ""))
			apart.expectReply("1", 200, "")
		}
		release()
		for i := range each {
			healthy.expectReply(strconv.Itoa(i), 200, "")
		}
		wait()
		for _, c := range blocking {
			for range 100 {
				c.expectReply("1", 200, "")
			}
		}
	})
}

// One client's messages are handled in order, on whichever pool.
func TestFlowPoolsKeepOrder(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
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
		c := s.dial(w)
		n := fewerUnderRace(20_000)
		var burst strings.Builder
		for i := range n {
			event := events[(i*7+i/3)%len(events)]
			burst.WriteString(frame(gws.OpText, request(event, strconv.Itoa(i), fmt.Sprintf(`{"n":%d}`, i))))
		}
		wait := c.writeInBackground(burst.String())
		for i := range n {
			c.expectReply(strconv.Itoa(i), 200, "")
		}
		wait()
	})
}

// A handler that is late is logged once, with its stack.
func TestFlowLogAfter(t *testing.T) {
	for name, mode := range map[string]ws.RouteOption{"pooled": ws.RunPooled(), "inline": ws.RunInline()} {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			s := start(t, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			release := make(chan struct{})
			require.NoError(t, ws.Handle0(s.Manager, "late", func(*ws.Client, *ordered) error {
				theHandlerThatIsLate(release)
				return nil
			}, mode, ws.LogAfter(10*time.Millisecond)))
			c := s.dial(native)
			c.send(request("late", "1", ""))
			eventually(t, func() bool { return strings.Contains(log.String(), "theHandlerThatIsLate") }, "no stack in %s", log.String())
			assert.Contains(t, log.String(), "event=late")
			assert.EqualValues(t, 1, s.Stats().LateHandlers)
			close(release)
			c.expectReply("1", 200, "")
		})
	}
}

//go:noinline
func theHandlerThatIsLate(release <-chan struct{}) { <-release }

// What inline handlers publish while a ring is full is not refused: it arrives, in
// each publisher's order, and the publishers' connections wait.
func TestFlowInlinePublishers(t *testing.T) {
	const publishers, members = 10, 6
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start(ws.WithHandlerMode(ws.Inline), func(c *ws.Config) {
			c.Broadcast.QueueSize, c.MessageQueueSize = 8, 1<<20
		}, withDeepQueue)
		each := fewerUnderRace(2000)
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
		var joined []*client
		for range members {
			c := s.connect()
			c.send("join")
			c.expect("joined")
			joined = append(joined, c)
		}
		var sources []*client
		for range publishers {
			sources = append(sources, s.connect())
		}
		s.connect().send("hold") // one loop is busy for a while
		receive(t, held, "not held")
		var writers sync.WaitGroup
		for p, c := range sources {
			var burst strings.Builder
			for i := range each {
				burst.WriteString(frame(gws.OpText, fmt.Sprintf("%d %d", p, i)))
			}
			wait := c.writeInBackground(burst.String())
			writers.Go(wait)
		}
		close(release)
		for _, c := range joined {
			var next [publishers]int
			for range publishers * each {
				var p, i int
				_, err := fmt.Sscan(string(c.read().Payload), &p, &i)
				require.NoError(t, err)
				require.Equal(t, next[p], i, "publisher %d", p)
				next[p]++
			}
		}
		writers.Wait()
		assert.Zero(t, s.Stats().Total.Drops.Full)
		eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
	})
}
