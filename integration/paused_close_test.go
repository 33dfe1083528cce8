package integration_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// pausedClient returns a client with more requests than its mailbox takes, whose
// first is being handled until release is called.
func pausedClient(s *harness.Endpoint) (c *harness.Client, sc *ws.Client, release func()) {
	s.T.Helper()
	entered, release := harness.RegisterBlock(s.T.(*testing.T), s.Manager)
	var burst []string
	for id := range 500 {
		burst = append(burst, harness.BlockMessage(id))
	}
	c = s.Connect()
	c.Send(burst...)
	harness.Receive(s.T, entered, "not called")
	harness.Eventually(s.T, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
	s.RangeClients(func(found *ws.Client) bool { sc = found; return true })
	return c, sc, release
}

// The server closes a paused client: its close frame is read at once, although the
// handler still runs.
func TestFlowCloseByServer(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		c, sc, release := pausedClient(s)
		sc.CloseWithCode(4001, "enough")
		assert.Equal(t, "enough", c.ExpectClose(4001))
		c.Finish(4001)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		assert.Zero(t, s.Stats().Total.Paused)
		assert.Zero(t, s.Stats().Total.HeldBytes)
		release()
		harness.Eventually(t, func() bool { return s.Stats().Unhandled > 0 }, "the waiting messages are not counted")
	})
}

// A paused client closes behind its requests: all of them are answered first.
func TestFlowCloseByClient(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		c, _, release := pausedClient(s)
		c.SendClose(1000, "bye")
		if tc, ok := c.Conn.(*tls.Conn); ok {
			require.NoError(t, tc.CloseWrite()) // close_notify comes in the same read
		}
		release()
		for id := range 500 {
			c.ExpectReply(strconv.Itoa(id), 200, "")
		}
		assert.Equal(t, "bye", c.ExpectClose(1000))
		c.ExpectEOF()
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
	})
}

// The reset of a paused client ends it at once.
func TestFlowReset(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := &harness.Endpoint{Server: harness.Start(t), Way: w}
		c, _, release := pausedClient(s)
		c.Abort()
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		assert.Zero(t, s.Stats().Total.HeldBytes)
		release()
	})
}

// Shutdown does not wait for unread messages of paused clients.
func TestFlowShutdown(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		c, _, release := pausedClient(s)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Stop()
		}()
		c.ExpectClose(1001)
		c.Finish(1001)
		release()
		harness.Receive(t, done, "Shutdown did not end")
	})
}

// A client may send far ahead of the handshake's answer: it waits.
func TestFlowEarlyMessages(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		admit := make(chan struct{})
		s := start(ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) {
			<-admit
			return nil, nil
		}))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, p []byte) { assert.NoError(t, c.SendBytes(p[:8])) })
		c := s.DialTCP(s.Way)
		if s.Wrap != nil {
			c = s.Wrap(c)
		}
		const messages = 400
		var b strings.Builder
		b.WriteString(harness.UpgradeRequest("/ws", ""))
		for i := range messages {
			b.WriteString(harness.Frame(gobwas.OpText, fmt.Sprintf("%08d", i)+strings.Repeat("x", 10_000)))
		}
		wait := c.WriteInBackground(b.String())
		if s.Way == harness.Native {
			harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
		}
		close(admit)
		resp, body := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode, body)
		for i := range messages {
			c.Expect(fmt.Sprintf("%08d", i))
		}
		wait()
	})
}

// Pings still go to a paused client, which is not called silent: it is not read.
func TestFlowPausedIsAlive(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithHeartbeatInterval(100*time.Millisecond), ws.WithHeartbeatTimeout(timeout))
		c, sc, release := pausedClient(s)
		for began := time.Now(); time.Since(began) < timeout*3/2; {
			require.Equal(t, gobwas.OpPing, c.ReadFrame().Header.OpCode)
		}
		assert.False(t, sc.IsClosed())
		stop := make(chan struct{})
		defer close(stop)
		release()
		for id := range 500 {
			c.ExpectReply(strconv.Itoa(id), 200, "")
		}
	})
}

// A paused client that takes none of its answers is called silent in the end.
func TestFlowPausedAndStalled(t *testing.T) {
	t.Parallel()
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithHeartbeatInterval(100*time.Millisecond), ws.WithHeartbeatTimeout(3*time.Second))
		require.NoError(t, ws.Handle(s.Manager, "get", func(*ws.Client, *ordered) (*string, error) {
			answer := strings.Repeat("a", 64<<10)
			return &answer, nil
		}))
		burst := []byte(burstOf("get", 20_000)) // made before the client can be silent
		c := s.Connect()
		go func() { _, _ = c.Write(burst) }() // fails when the server gives up
		harness.Eventually(t, func() bool { return s.Stats().Total.PausedTotal > 0 }, "not paused")
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		assert.Zero(t, s.Stats().Total.Paused)
	})
}

// Shutdown stops accepting first: clients that reconnect all the time do not hold
// it up, and two that do not answer cost the close timeout alone.
func TestFlowShutdownAmidReconnects(t *testing.T) {
	const reconnecting = 200
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMaxConnections(1000), func(c *ws.Config) { c.CloseTimeout = time.Second })
		for range 2 {
			s.Dial(w) // silent
		}
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for range reconnecting {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						connectUntilClosed(s, w)
					}
				}
			})
		}
		harness.Eventually(t, func() bool { return s.GetClientCount() > reconnecting/2 }, "not connected")
		began := time.Now()
		harness.Shutdown(t, s.Manager)
		assert.Less(t, time.Since(began), 20*time.Second)
		close(stop)
		clients.Wait()
	})
}

// connectUntilClosed is a client that connects, answers the server's close frame,
// and returns when the connection has ended or failed.
func connectUntilClosed(s *harness.Server, w harness.Way) {
	nc, err := net.DialTimeout("tcp", s.AddrOf(w), time.Second)
	if err != nil {
		<-time.After(20 * time.Millisecond) // as a client that backs off
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(harness.Patience))
	r := bufio.NewReader(nc)
	if _, err := nc.Write([]byte(harness.UpgradeRequest("/ws", ""))); err != nil {
		return
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return
	}
	if _, err := gobwas.ReadHeader(r); err == nil {
		_, _ = nc.Write([]byte(harness.Frame(gobwas.OpClose, "\x03\xe9")))
		_, _ = io.Copy(io.Discard, r)
	}
}
