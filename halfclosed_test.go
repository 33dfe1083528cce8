package ws_test

import (
	"crypto/tls"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// halfClose ends what c sends: with close_notify and a FIN over TLS, with a FIN else.
func (c *client) halfClose() {
	c.t.Helper()
	conn := c.Conn
	if tc, ok := conn.(*tls.Conn); ok {
		require.NoError(c.t, tc.CloseWrite())
		conn = tc.NetConn()
	}
	require.NoError(c.t, conn.(*net.TCPConn).CloseWrite())
}

// halfCloseWithoutNotify is halfClose with a FIN alone.
func (c *client) halfCloseWithoutNotify() {
	c.t.Helper()
	conn := c.Conn
	if tc, ok := conn.(*tls.Conn); ok {
		conn = tc.NetConn()
	}
	require.NoError(c.t, conn.(*net.TCPConn).CloseWrite())
}

// A client that has sent a FIN behind its requests gets all answers, and then the end.
func TestHalfClosedClientsGetTheirAnswers(t *testing.T) {
	for name, halfClose := range map[string]func(*client){
		"close_notify": (*client).halfClose, "FIN": (*client).halfCloseWithoutNotify,
	} {
		for _, requests := range []int{1, 30, 500} { // a mailbox takes 64
			t.Run(name+", "+strconv.Itoa(requests), func(t *testing.T) {
				onEachTransportAndMode(t, func(t *testing.T, mode ws.HandlerMode, start func(...ws.Option) *flowServer) {
					s := start()
					ends := s.events(ws.EventClientDisconnected)
					entered, release := registerBlock(t, s.Manager)
					if mode == ws.Inline {
						release()
					}
					c := s.connect()
					var burst []string
					for id := range requests {
						burst = append(burst, blockMessage(id))
					}
					c.send(burst...)
					receive(t, entered, "not called")
					halfClose(c)
					if mode == ws.Pooled {
						eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "the FIN was not noticed")
						release()
					}
					for id := range requests {
						c.expectReply(strconv.Itoa(id), 200, "")
					}
					c.expectEOF()
					end := receive(t, ends, "no disconnect").Data.(*ws.CloseError)
					assert.Equal(t, 1006, end.Code)
					assert.Zero(t, s.Stats().Unhandled)
					eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
					assert.Zero(t, s.Stats().Total.Paused)
				})
			})
		}
	}
}

// halfClosedClient returns a client that has sent 30 requests and a FIN. The first of them is
// being handled until release is called.
func (s *flowServer) halfClosedClient() (c *client, release func()) {
	s.t.Helper()
	entered, release := registerBlock(s.t.(*testing.T), s.Manager)
	c = s.connect()
	for id := range 30 {
		c.send(blockMessage(id))
	}
	receive(s.t, entered, "not called")
	c.halfClose()
	eventually(s.t, func() bool { return s.Stats().Total.Paused == 1 }, "the FIN was not noticed")
	return c, release
}

// The answers may take CloseTimeout; then the connection ends.
func TestHalfClosedClientsEndInTime(t *testing.T) {
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start(func(c *ws.Config) { c.CloseTimeout = 300 * time.Millisecond })
		c, release := s.halfClosedClient()
		c.expectEOF()
		eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		assert.EqualValues(t, 29, s.Stats().Unhandled)
		release()
	})
}

// The rest of the messages of a client that has gone whole is dropped when its kernel refuses
// the first answer.
func TestHalfClosedClientsThatHaveGone(t *testing.T) {
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start(ws.WithWorkers(1))
		c, release := s.halfClosedClient()
		if tc, ok := c.Conn.(*tls.Conn); ok {
			c.Conn = tc.NetConn()
		}
		c.abort()
		release()
		eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
	})
}

// Shutdown closes with 1001 in place of the end of the answers.
func TestHalfClosedClientsAtShutdown(t *testing.T) {
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start()
		c, release := s.halfClosedClient()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.shutdown()
		}()
		c.expectClose(1001)
		c.expectEOF()
		release()
		receive(t, done, "Shutdown did not end")
	})
}

// A client that has sent a FIN and does not read its answers ends within its CloseTimeout.
func TestHalfClosedClientsThatDoNotRead(t *testing.T) {
	onEachTransport(t, func(t *testing.T, start func(...ws.Option) *flowServer) {
		s := start(func(c *ws.Config) { c.CloseTimeout = 300 * time.Millisecond }, ws.WithSocketBuffers(0, 16<<10))
		big := string(make([]byte, 64<<10))
		entered, release := registerBlock(t, s.Manager)
		require.NoError(t, s.Register("big", func(c *ws.Client, m *ws.Message) error {
			return c.SendResponse(m.RequestID, 200, "success", big)
		}))
		c := s.connect()
		c.send(blockMessage(0))
		receive(t, entered, "not called")
		for range 20 {
			c.send(request("big", "1", ""))
		}
		c.halfClose()
		eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "the FIN was not noticed")
		release()
		eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
	})
}

// corkedConn keeps what is written until it is uncorked.
type corkedConn struct {
	net.Conn
	corked bool
	kept   []byte
}

func (c *corkedConn) Write(b []byte) (int, error) {
	if c.corked {
		c.kept = append(c.kept, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// The close_notify of TLS comes in the same read as the request that fills the mailbox: all
// requests are answered.
func TestCloseNotifyBehindAFullMailbox(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := startTLS(t, nil)
		entered, release := registerBlock(t, s.Manager)
		corked := &corkedConn{}
		plain := s.dialTCP(w)
		corked.Conn = plain.Conn
		c := (&client{Conn: corked, t: t}).over(s.clientTLS(tls.VersionTLS13))
		c.raw(upgradeRequest("/ws", ""))
		resp, body := c.response()
		require.Equal(t, 101, resp.StatusCode, body)
		c.send(blockMessage(0))
		receive(t, entered, "not called")
		corked.corked = true
		const requests = 66 // one is being handled, 65 wait: one more than MailboxSize
		var burst []string
		for id := range requests - 1 {
			burst = append(burst, blockMessage(id+1))
		}
		c.send(burst...)
		require.NoError(t, c.Conn.(*tls.Conn).CloseWrite())
		require.NoError(t, plain.SetWriteDeadline(time.Time{})) // crypto/tls leaves one that is over
		_, err := plain.Write(corked.kept)
		require.NoError(t, err)
		eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
		release()
		for id := range requests {
			c.expectReply(strconv.Itoa(id), 200, "")
		}
		c.expectEOF()
	})
}
