package ws_test

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
)

// A message of more than 64 KiB may be MaxRatio times as long as its compressed form.
func TestInflateRatio(t *testing.T) {
	const free = 64 << 10
	words := make([]byte, 20_000)
	for i := range words {
		words[i] = 'a' + byte(rand.Uint32()%26)
	}
	for _, tt := range []struct {
		name     string
		maxRatio int
		message  string
		closes   bool
	}{
		{"default, free", 0, strings.Repeat("a", free), false},
		{"default, above", 0, strings.Repeat("a", free+1), true},
		{"default, below", 0, strings.Repeat("a", 400_000) + string(words), false},
		{"low", 2, strings.Repeat("a", 400_000) + string(words), true},
		{"high", 1032, strings.Repeat("a", 512<<10), false},
		{"off", -1, strings.Repeat("a", 512<<10), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBothWays(t, func(t *testing.T, w way) {
				s := start(t, ws.WithCompression(ws.CompressionConfig{MaxRatio: tt.maxRatio}))
				rawEcho(s.Manager)
				c := s.dialDeflate(w, "permessage-deflate")
				c.sendDeflated(gws.OpText, tt.message)
				if tt.closes {
					c.expectClose(int(codec.CloseMessageTooBig))
					return
				}
				_, got, _ := c.message()
				require.True(t, got == tt.message)
			})
		})
	}
}

// The ratio of the first part of a message does not matter.
func TestInflateRatioOfPart(t *testing.T) {
	s := start(t, ws.WithCompression(ws.CompressionConfig{}))
	rawEcho(s.Manager)
	c := s.dialDeflate(native, "permessage-deflate")
	words := make([]byte, 20_000)
	for i := range words {
		words[i] = 'a' + byte(rand.Uint32()%26)
	}
	message := strings.Repeat("a", 400_000) + string(words)
	z := c.z.Append(nil, []byte(message), nil, 15)
	part := func(op gws.OpCode, fin, compressed bool, payload []byte) {
		f := gws.MaskFrameInPlaceWith(gws.NewFrame(op, fin, payload), [4]byte{1, 2, 3, 4})
		f.Header.Rsv = gws.Rsv(compressed, false, false)
		c.raw(string(gws.MustCompileFrame(f)))
	}
	part(gws.OpText, false, true, z[:len(z)/10])
	part(gws.OpPing, true, false, []byte("read"))
	require.Equal(t, gws.OpPong, c.readFrame().Header.OpCode)
	part(gws.OpContinuation, true, false, z[len(z)/10:])
	_, got, _ := c.message()
	require.True(t, got == message)
}

// A client that makes the loop inflate much in one read is paused, so that others are served between. Its messages
// are handled in order, and none is lost.
func TestInflateShare(t *testing.T) {
	messages := fewerUnderRace(100)
	onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(opts ...ws.Option) *flowServer) {
		s := start(ws.WithLoops(1), ws.WithCompression(ws.CompressionConfig{MaxRatio: -1}))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			_ = c.SendBytes([]byte(strconv.Itoa(len(payload))))
		})
		c := s.connectDeflate()
		healthy := s.connect()
		var burst strings.Builder
		for i := range messages {
			z := c.z.Append(nil, bytes.Repeat([]byte("a"), 400_000+i), nil, 15)
			f := gws.MaskFrameInPlaceWith(gws.NewTextFrame(z), [4]byte{1, 2, 3, 4})
			f.Header.Rsv = gws.Rsv(true, false, false)
			burst.Write(gws.MustCompileFrame(f))
		}
		wait := c.writeInBackground(burst.String())
		for i := range messages {
			if i%10 == 0 {
				healthy.send("hello")
				healthy.expect("5")
			}
			c.expect(strconv.Itoa(400_000 + i))
		}
		wait()
		stats := s.Stats().Total
		assert.GreaterOrEqual(t, stats.Pauses, uint64(messages/5), "each holds a message or two")
		eventually(t, func() bool {
			stats := s.Stats().Total
			return stats.Paused == 0 && stats.Held == 0
		}, "still paused")
	})
}

// connectDeflate is connect with compression in both directions.
func (s *flowServer) connectDeflate() *deflateClient {
	c := s.dialTCP(s.way)
	if s.wrap != nil {
		c = s.wrap(c)
	}
	c.raw(upgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
	resp, body := c.response()
	require.Equal(s.t, http.StatusSwitchingProtocols, resp.StatusCode, body)
	return &deflateClient{client: c, z: codec.NewDeflater(6)}
}

// A rate limit counts the compressed bytes of a message and those that it inflates to.
func TestRateLimitCountsCompressedBytes(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		message := strings.Repeat("a", 1000)
		wire := len(codec.NewDeflater(6).Append(nil, []byte(message), nil, 15))
		burst := int64(3*(1000+wire) + 5)
		s := start(t, mode, ws.WithCompression(ws.CompressionConfig{}), ws.WithRateLimit(ws.RateLimit{Bytes: never, ByteBurst: burst}))
		s.HandleRaw(echo)
		c := s.dialDeflate(w, "permessage-deflate")
		for range 3 {
			c.sendDeflated(gws.OpText, message)
			_, got, _ := c.message()
			require.Equal(t, message, got)
		}
		c.send("123456", "12345") // plain ones count once
		c.expect("12345")
		assert.EqualValues(t, 1, s.Stats().RateLimited)
	})
}
