package ws_test

import (
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestInfo(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithPath("/other", "/ws"), ws.WithSubprotocols("b", "a"))
		began := time.Now()
		c := s.Connect()
		var sc *ws.Client
		s.RangeClients(func(c *ws.Client) bool { sc = c; return true })
		require.NotNil(t, sc)
		require.NoError(t, sc.JoinRoom("one"))
		require.NoError(t, sc.JoinRoom("two"))
		info := sc.Info()
		assert.Equal(t, sc.ID, info.ID)
		assert.Equal(t, c.LocalAddr().String(), info.RemoteAddr)
		assert.Equal(t, s.Wrap != nil, info.TLS)
		path := ""
		if s.Way == harness.Native {
			path = "/ws"
		}
		assert.Equal(t, path, info.Path)
		assert.Equal(t, 2, info.Rooms)
		assert.False(t, info.Compressed)
		assert.Zero(t, info.QueuedBytes)
		assert.Zero(t, info.QueuedMessages)
		// The clock of the connections is as late as a busy machine lets it be.
		assert.WithinRange(t, info.Since, began.Add(-harness.Patience), time.Now().Add(time.Second))
		assert.False(t, info.Closing)
		sc.Close()
		assert.True(t, sc.Info().Closing)
		c.Finish(1000)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "still connected")
		assert.True(t, sc.Info().Closing, "Info works on a client that has gone")
	})
}

func TestInfoOfNegotiatedOptions(t *testing.T) {
	s := harness.Start(t, ws.WithSubprotocols("b", "a"), ws.WithAuthenticate(harness.ByQuery),
		ws.WithCompression(ws.CompressionConfig{ContextTakeover: true}))
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws?id=x&user=7",
		"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"))
	resp, body := c.ReadResponse()
	require.Equal(t, 101, resp.StatusCode, body)
	sc, ok := s.GetClient("x")
	require.True(t, ok)
	info := sc.Info()
	assert.Equal(t, "a", info.Subprotocol)
	assert.Equal(t, "7", info.User)
	assert.True(t, info.Compressed)
	assert.True(t, info.ContextTakeover)
}

func TestInfoOfAStalledClient(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue)
	entered, release := harness.RegisterBlock(t, s.Manager)
	c, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	c.Send(harness.BlockMessage(1), harness.BlockMessage(2), harness.BlockMessage(3))
	harness.Receive(t, entered, "the handler does not run")
	harness.Eventually(t, func() bool { return sc.Info().Unhandled == 2 }, "two messages wait behind one")
	var info ws.ClientInfo
	harness.Eventually(t, func() bool { // the kernel may still take bytes
		info = sc.Info()
		return info.Blocked && sc.QueuedBytes() == info.QueuedBytes
	}, "not blocked, or other bytes are queued")
	assert.Equal(t, 1, info.QueuedMessages)
	release()
}

func TestRoundTrip(t *testing.T) {
	const delay = 30 * time.Millisecond
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithHeartbeatInterval(20*time.Millisecond), ws.WithHeartbeatTimeout(time.Minute))
		c, sc := s.DialClient(w)
		for _, payload := range []string{"", "abcd", "longer"} { // pongs that answer no ping
			c.WriteRaw(harness.Frame(gobwas.OpPong, payload))
		}
		c.WriteRaw(harness.Frame(gobwas.OpPing, "read"))
		f := c.ReadFrame()
		if f.Header.OpCode == gobwas.OpPong { // else a ping came first, and the pongs may not be read yet
			assert.Zero(t, sc.RoundTrip())
			f = c.ReadFrame()
		}
		require.Equal(t, gobwas.OpPing, f.Header.OpCode)
		<-time.After(delay)
		began := time.Now()
		c.WriteRaw(harness.Frame(gobwas.OpPong, string(f.Payload)))
		harness.Eventually(t, func() bool { return sc.RoundTrip() != 0 }, "no round trip")
		assert.GreaterOrEqual(t, sc.RoundTrip(), delay-time.Millisecond)
		assert.LessOrEqual(t, sc.RoundTrip(), 2*harness.Patience+time.Since(began))
		assert.Equal(t, sc.RoundTrip(), sc.Info().RoundTrip)
	})
}

func TestRoundTripInAWord(t *testing.T) {
	for _, d := range []time.Duration{
		0, time.Microsecond, 2 * time.Microsecond, 2047 * time.Microsecond, 2048 * time.Microsecond, 4097 * time.Microsecond,
		time.Millisecond, 17 * time.Millisecond, time.Second, 90 * time.Second, 100 * time.Hour,
	} {
		got := ws.RoundTripInAWord(d)
		assert.Positive(t, got, "%v: 0 is none", d)
		assert.InEpsilon(t, max(d, time.Microsecond), got, 0.001, "%v", d)
	}
	assert.Positive(t, ws.RoundTripInAWord(1<<62))
}
