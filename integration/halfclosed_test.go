package integration_test

import (
	"crypto/tls"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// halfClose ends the sending direction of c: with close_notify and a FIN over TLS, with a FIN else.
func halfClose(c *harness.Client) {
	c.T.Helper()
	conn := c.Conn
	if tc, ok := conn.(*tls.Conn); ok {
		require.NoError(c.T, tc.CloseWrite())
		conn = tc.NetConn()
	}
	require.NoError(c.T, conn.(*net.TCPConn).CloseWrite())
}

// halfCloseWithoutNotify is halfClose with a FIN alone.
func halfCloseWithoutNotify(c *harness.Client) {
	c.T.Helper()
	conn := c.Conn
	if tc, ok := conn.(*tls.Conn); ok {
		conn = tc.NetConn()
	}
	require.NoError(c.T, conn.(*net.TCPConn).CloseWrite())
}

// A client that has sent a FIN behind its requests gets all answers, and then the end.
func TestHalfClosedClientsGetTheirAnswers(t *testing.T) {
	for name, halfClose := range map[string]func(*harness.Client){
		"close_notify": halfClose, "FIN": halfCloseWithoutNotify,
	} {
		for _, requests := range []int{1, 30, 500} { // a mailbox takes 64
			t.Run(name+", "+strconv.Itoa(requests), func(t *testing.T) {
				harness.OnEachTransportAndMode(t, func(t *testing.T, mode ws.HandlerMode,
					start func(...ws.Option) *harness.Endpoint,
				) {
					s := start()
					ends := s.Events(ws.EventClientDisconnected)
					entered, release := harness.RegisterBlock(t, s.Manager)
					if mode == ws.Inline {
						release()
					}
					c := s.Connect()
					var burst []string
					for id := range requests {
						burst = append(burst, harness.BlockMessage(id))
					}
					c.Send(burst...)
					harness.Receive(t, entered, "not called")
					halfClose(c)
					if mode == ws.Pooled {
						harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "the FIN was not noticed")
						release()
					}
					for id := range requests {
						c.ExpectReply(strconv.Itoa(id), 200, "")
					}
					c.ExpectEOF()
					end := harness.Receive(t, ends, "no disconnect").Data.(*ws.CloseError)
					assert.Equal(t, 1006, end.Code)
					assert.Zero(t, s.Stats().Unhandled)
					harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
					assert.Zero(t, s.Stats().Total.Paused)
				})
			})
		}
	}
}

// halfClosedClient returns a client that has sent 30 requests and a FIN. The first of them is
// being handled until release is called.
func halfClosedClient(s *harness.Endpoint) (c *harness.Client, release func()) {
	s.T.Helper()
	entered, release := harness.RegisterBlock(s.T.(*testing.T), s.Manager)
	c = s.Connect()
	for id := range 30 {
		c.Send(harness.BlockMessage(id))
	}
	harness.Receive(s.T, entered, "not called")
	halfClose(c)
	awaitFIN(s)
	return c, release
}

// awaitFIN waits until the only connection is paused because of its FIN, or has ended since.
func awaitFIN(s *harness.Endpoint) {
	s.T.Helper()
	harness.Eventually(s.T, func() bool {
		total := s.Stats().Total
		return total.Paused == 1 || total.Closed == 1
	}, "the FIN was not noticed")
}

// The answers may take CloseTimeout; then the connection ends.
func TestHalfClosedClientsEndInTime(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(func(c *ws.Config) { c.CloseTimeout = 300 * time.Millisecond })
		c, release := halfClosedClient(s)
		c.ExpectEOF()
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		harness.Eventually(t, func() bool { return s.Stats().Unhandled == 29 }, "not counted as unhandled")
		release()
	})
}

// The rest of the messages of a client that has gone whole is dropped when its kernel refuses
// the first answer.
func TestHalfClosedClientsThatHaveGone(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithWorkers(1))
		c, release := halfClosedClient(s)
		if tc, ok := c.Conn.(*tls.Conn); ok {
			c.Conn = tc.NetConn()
		}
		c.Abort()
		release()
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
		harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
	})
}

// Shutdown closes with 1001 in place of the end of the answers.
func TestHalfClosedClientsAtShutdown(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start()
		c, release := halfClosedClient(s)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Stop()
		}()
		c.ExpectClose(1001)
		c.ExpectEOF()
		release()
		harness.Receive(t, done, "Shutdown did not end")
	})
}

// A client that has sent a FIN and does not read its answers ends within its CloseTimeout.
func TestHalfClosedClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(...ws.Option) *harness.Endpoint) {
		s := start(func(c *ws.Config) { c.CloseTimeout = time.Second }, ws.WithSocketBuffers(0, 16<<10))
		big := string(make([]byte, 64<<10))
		entered, release := harness.RegisterBlock(t, s.Manager)
		require.NoError(t, s.Register("big", func(c *ws.Client, m *ws.Message) error {
			return c.SendResponse(m.RequestID, 200, "success", big)
		}))
		c := s.Connect()
		c.Send(harness.BlockMessage(0))
		harness.Receive(t, entered, "not called")
		for range 20 {
			c.Send(harness.Request("big", "1", ""))
		}
		halfClose(c)
		awaitFIN(s)
		release()
		harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 0 }, "not closed")
	})
}

// corkedConn keeps written bytes until it is uncorked.
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.StartTLS(t, nil)
		entered, release := harness.RegisterBlock(t, s.Manager)
		corked := &corkedConn{}
		plain := s.DialTCP(w)
		corked.Conn = plain.Conn
		c := (&harness.Client{Conn: corked, T: t}).Over(s.ClientConfig(tls.VersionTLS13))
		c.WriteRaw(harness.UpgradeRequest("/ws", ""))
		resp, body := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode, body)
		c.Send(harness.BlockMessage(0))
		harness.Receive(t, entered, "not called")
		corked.corked = true
		const requests = 66 // one is being handled, 65 wait: one more than MailboxSize
		var burst []string
		for id := range requests - 1 {
			burst = append(burst, harness.BlockMessage(id+1))
		}
		c.Send(burst...)
		require.NoError(t, c.Conn.(*tls.Conn).CloseWrite())
		require.NoError(t, plain.SetWriteDeadline(time.Time{})) // crypto/tls leaves one that is over
		_, err := plain.Write(corked.kept)
		require.NoError(t, err)
		harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
		release()
		for id := range requests {
			c.ExpectReply(strconv.Itoa(id), 200, "")
		}
		c.ExpectEOF()
	})
}
