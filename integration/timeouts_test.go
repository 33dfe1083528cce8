package integration_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// A message that does not arrive whole in time ends its connection, however steadily
// it comes, and whatever comes between its fragments.
func TestMessageTimeout(t *testing.T) {
	t.Parallel()
	whole := harness.Frame(gobwas.OpText, "a message that is never whole")
	for name, trickle := range map[string][]string{
		"header":  {whole[:1]},
		"payload": {whole[:8], whole[8:9], whole[9:10], whole[10:11]},
		"fragments": {
			harness.Fragment(gobwas.OpText, false, "a"), harness.Frame(gobwas.OpPing, ""),
			harness.Fragment(gobwas.OpContinuation, false, "b"), harness.Frame(gobwas.OpPing, ""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
				s := start(ws.WithMessageTimeout(1500 * time.Millisecond))
				harness.RegisterGreetings(t, s.Manager)
				c := s.Connect()
				began := time.Now()
				go func() {
					for _, b := range trickle {
						_, _ = c.Write([]byte(b))
						time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the pace of the client
					}
				}()
				for {
					f, err := harness.ReadFrame(c.R)
					require.NoError(t, err)
					if f.Header.OpCode == gobwas.OpClose {
						code, reason := gobwas.ParseCloseFrameData(f.Payload)
						assert.EqualValues(t, ws.ClosePolicyViolation, code)
						assert.Equal(t, "message not received in time", reason)
						break
					}
				}
				assert.GreaterOrEqual(t, time.Since(began), 500*time.Millisecond)
			})
		})
	}
}

// A message that comes whole in time does not end its connection, be it one after
// the other without a pause, and neither does one whose client waits because of us.
func TestMessageTimeoutSparesOthers(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		const timeout, messages = 3 * time.Second, 8
		s := start(ws.WithMessageTimeout(timeout), func(c *ws.Config) { c.MailboxSize = 1 })
		s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) {
			time.Sleep(timeout / 5) //nolint:forbidigo // a slow handler
			_ = c.SendBytes(payload[:1])
		})
		c := s.Connect()
		large := string(make([]byte, 100<<10))
		go func() {
			for range messages {
				b := harness.Frame(gobwas.OpBinary, large)
				_, _ = c.Write([]byte(b[:len(b)/2]))
				_, _ = c.Write([]byte(b[len(b)/2:]))
			}
		}()
		for range messages {
			f, err := harness.ReadFrame(c.R)
			require.NoError(t, err)
			require.Equal(t, gobwas.OpText, f.Header.OpCode)
		}
	})
}

// A client that takes none of its queued messages is ended, though its connection stands; one that
// reads slowly lives.
func TestWriteTimeout(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithWriteTimeout(3*time.Second), ws.WithSocketBuffers(0, 64<<10), harness.WithDeepQueue)
		closed := s.Events(ws.EventClientDisconnected)
		stuck, slow := s.Connect(), s.Connect()
		var read atomic.Int64
		go func() {
			b := make([]byte, 8<<10)
			for {
				n, err := slow.Read(b)
				if err != nil {
					return
				}
				read.Add(int64(n))
				time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the pace of the client
			}
		}()
		message := make([]byte, 256<<10)
		s.RangeClients(func(c *ws.Client) bool {
			for range 96 { // the slow client reads for a minute
				assert.NoError(t, c.SendBinary(message))
			}
			return true
		})
		e := harness.Receive(t, closed, "the client that reads nothing stays").Data.(*ws.CloseError)
		assert.ErrorContains(t, e.Err, "write timeout")
		assert.Equal(t, 1, s.GetClientCount())
		before := read.Load()
		harness.Eventually(t, func() bool { return read.Load() > before+64<<10 }, "the client that reads slowly gets no more")
		assert.Equal(t, 1, s.GetClientCount())
		_ = stuck.Close()
	})
}

// A client that goes on sending behind a violation is not read: it can fill the buffers of the
// kernels, reads the close frame, and its connection ends.
func TestViolatorsAreNotRead(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		for name, violate := range map[string]string{
			"protocol": harness.Frame(gobwas.OpText, "\xff"),
			"limit":    "", // the application closes it
		} {
			t.Run(name, func(t *testing.T) {
				s := start(func(c *ws.Config) { c.CloseTimeout = time.Second }, ws.WithMessageSizeLimit(1<<20))
				require.NoError(t, s.Register("close", func(c *ws.Client, _ *ws.Message) error {
					c.CloseWithCode(ws.ClosePolicyViolation, "")
					return nil
				}))
				c := s.Connect()
				if violate == "" {
					violate = harness.Frame(gobwas.OpText, harness.Request("close", "1", "{}"))
				}
				c.WriteRaw(violate)
				flood := []byte(harness.Frame(gobwas.OpBinary, string(make([]byte, 512<<10))))
				done := make(chan error, 1)
				go func() {
					for {
						if _, err := c.Write(flood); err != nil {
							done <- err
							return
						}
					}
				}()
				require.Error(t, harness.Receive(t, done, "the connection does not end"))
				assert.Less(t, s.Stats().Total.BytesIn, uint64(10<<20))
				harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the client stays")
			})
		}
	})
}

// A client that answers our close frame behind messages under way has closed in order.
func TestCloseBehindDataUnderWay(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithMessageSizeLimit(1 << 20))
		closed := s.Events(ws.EventClientDisconnected)
		c := s.Connect()
		s.RangeClients(func(c *ws.Client) bool { c.CloseWithCode(4000, ""); return true })
		c.WriteRaw(harness.Frame(gobwas.OpBinary, string(make([]byte, 1<<20))))
		c.ExpectClose(4000)
		c.SendClose(4000, "")
		e := harness.Receive(t, closed, "the client stays").Data.(*ws.CloseError)
		assert.Equal(t, 4000, e.Code)
		assert.False(t, errors.Is(e.Err, net.ErrClosed))
		assert.NoError(t, e.Err)
	})
}
