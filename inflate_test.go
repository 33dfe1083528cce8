package ws_test

import (
	"bytes"
	"cmp"
	"compress/flate"
	"fmt"
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
	"github.com/qi-realtime/ws/internal/harness"
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
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{MaxRatio: tt.maxRatio}))
				s.HandleRaw(harness.Echo)
				c := dialDeflate(s, w, "permessage-deflate")
				c.sendDeflated(gws.OpText, tt.message)
				if tt.closes {
					reason := c.ExpectClose(int(codec.CloseMessageTooBig))
					ratio := cmp.Or(tt.maxRatio, 100)
					assert.Equal(t, fmt.Sprintf("message too large: it inflates to more than %d times its size", ratio), reason)
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
	s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{}))
	s.HandleRaw(harness.Echo)
	c := dialDeflate(s, harness.Native, "permessage-deflate")
	words := make([]byte, 20_000)
	for i := range words {
		words[i] = 'a' + byte(rand.Uint32()%26)
	}
	message := strings.Repeat("a", 400_000) + string(words)
	z := c.z.Append(nil, []byte(message), nil, 15)
	part := func(op gws.OpCode, fin, compressed bool, payload []byte) {
		f := gws.MaskFrameInPlaceWith(gws.NewFrame(op, fin, payload), [4]byte{1, 2, 3, 4})
		f.Header.Rsv = gws.Rsv(compressed, false, false)
		c.WriteRaw(string(gws.MustCompileFrame(f)))
	}
	part(gws.OpText, false, true, z[:len(z)/10])
	part(gws.OpPing, true, false, []byte("read"))
	require.Equal(t, gws.OpPong, c.ReadFrame().Header.OpCode)
	part(gws.OpContinuation, true, false, z[len(z)/10:])
	_, got, _ := c.message()
	require.True(t, got == message)
}

// A client that makes the loop inflate much in one read is paused, so that others are served between. Its messages
// are handled in order, and none is lost.
func TestInflateShare(t *testing.T) {
	messages := harness.FewerUnderRace(100)
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithLoops(1), ws.WithCompression(ws.CompressionConfig{MaxRatio: -1}))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			_ = c.SendBytes([]byte(strconv.Itoa(len(payload))))
		})
		c := connectDeflate(s)
		healthy := s.Connect()
		var burst strings.Builder
		for i := range messages {
			z := c.z.Append(nil, bytes.Repeat([]byte("a"), 400_000+i), nil, 15)
			f := gws.MaskFrameInPlaceWith(gws.NewTextFrame(z), [4]byte{1, 2, 3, 4})
			f.Header.Rsv = gws.Rsv(true, false, false)
			burst.Write(gws.MustCompileFrame(f))
		}
		wait := c.WriteInBackground(burst.String())
		for i := range messages {
			if i%10 == 0 {
				healthy.Send("hello")
				healthy.Expect("5")
			}
			c.Expect(strconv.Itoa(400_000 + i))
		}
		wait()
		assert.Positive(t, s.Stats().Total.PausedTotal)
		harness.Eventually(t, func() bool {
			stats := s.Stats().Total
			return stats.Paused == 0 && stats.HeldBytes == 0
		}, "still paused")
	})
}

// dearMessage returns a text and its compressed form, which takes many milliseconds to inflate: it
// is made of blocks that have tables of their own.
func dearMessage(t *testing.T) (text string, deflated []byte) {
	const size, flush = 400_000, 250
	letters := make([]byte, size)
	for i := range letters {
		letters[i] = 'a' + byte(min(rand.Uint32()%26, rand.Uint32()%26))
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.HuffmanOnly)
	require.NoError(t, err)
	for at := 0; at < size; at += flush {
		_, err = w.Write(letters[at:min(size, at+flush)])
		require.NoError(t, err)
		require.NoError(t, w.Flush())
	}
	return string(letters), bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// deflatedFrame returns a text message of a client whose compressed form is payload.
func deflatedFrame(payload []byte) string {
	f := gws.MaskFrameInPlaceWith(gws.NewTextFrame(bytes.Clone(payload)), [4]byte{1, 2, 3, 4})
	f.Header.Rsv = gws.Rsv(true, false, false)
	return string(gws.MustCompileFrame(f))
}

// A message that takes long to inflate is inflated in steps, with the connection paused, and those
// of other connections wait for it. They are handled in order; plain messages do not wait.
func TestInflateInSteps(t *testing.T) {
	text, deflated := dearMessage(t)
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithLoops(1), ws.WithCompression(ws.CompressionConfig{}))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			if len(payload) == len(text) && string(payload) != text {
				_ = c.SendBytes([]byte("not the message"))
			}
			_ = c.SendBytes([]byte(strconv.Itoa(len(payload))))
		})
		first, second, healthy := connectDeflate(s), connectDeflate(s), s.Connect()
		first.WriteRaw(deflatedFrame(deflated))
		first.Expect(strconv.Itoa(len(text)))
		assert.Positive(t, s.Stats().Total.PausedTotal, "one message alone")

		burst := deflatedFrame(deflated) + harness.Frame(gws.OpText, "plain") + deflatedFrame(deflated)
		waitFirst, waitSecond := first.WriteInBackground(burst), second.WriteInBackground(burst)
		for range 10 {
			healthy.Send("hello")
			healthy.Expect("5")
		}
		for _, c := range []*deflateClient{first, second} {
			c.Expect(strconv.Itoa(len(text)), "5", strconv.Itoa(len(text)))
		}
		waitFirst()
		waitSecond()
		harness.Eventually(t, func() bool {
			stats := s.Stats().Total
			return stats.Paused == 0 && stats.HeldBytes == 0
		}, "still paused")
	})
}

// A connection that ends, and one that is closed, while its message waits to be inflated leaves
// nothing behind, and the others go on.
func TestInflateInStepsOfClosedConnections(t *testing.T) {
	text, deflated := dearMessage(t)
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithLoops(1), ws.WithCompression(ws.CompressionConfig{}))
		clients := make(chan *ws.Client, 1)
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			if string(payload) == "close me" {
				clients <- c
				return
			}
			_ = c.SendBytes([]byte(strconv.Itoa(len(payload))))
		})
		gone, closed, stays := connectDeflate(s), connectDeflate(s), connectDeflate(s)
		closed.Send("close me")
		client := harness.Receive(t, clients, "no message")
		for _, c := range []*deflateClient{stays, gone, closed} {
			c.WriteRaw(deflatedFrame(deflated) + harness.Frame(gws.OpText, "plain"))
		}
		_ = gone.Close()
		client.CloseWithCode(4000, "enough")
		closed.ExpectClose(4000)
		closed.Finish(4000)
		stays.Expect(strconv.Itoa(len(text)), "5")
		harness.Eventually(t, func() bool {
			stats := s.Stats().Total
			return stats.Connections == 1 && stats.Paused == 0 && stats.HeldBytes == 0
		}, "something is left")
	})
}

// connectDeflate is connect with compression in both directions.
func connectDeflate(s *harness.Endpoint) *deflateClient {
	c := s.DialTCP(s.Way)
	if s.Wrap != nil {
		c = s.Wrap(c)
	}
	c.WriteRaw(harness.UpgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
	resp, body := c.ReadResponse()
	require.Equal(s.T, http.StatusSwitchingProtocols, resp.StatusCode, body)
	return &deflateClient{Client: c, z: codec.NewDeflater(6)}
}

// A rate limit counts the compressed bytes of a message and those that it inflates to.
func TestRateLimitCountsCompressedBytes(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		message := strings.Repeat("a", 1000)
		wire := len(codec.NewDeflater(6).Append(nil, []byte(message), nil, 15))
		burst := int64(3*(1000+wire) + 5)
		s := harness.Start(t, mode, ws.WithCompression(ws.CompressionConfig{}), ws.WithRateLimit(ws.RateLimit{Bytes: never, ByteBurst: burst}))
		s.HandleRaw(harness.Echo)
		c := dialDeflate(s, w, "permessage-deflate")
		for range 3 {
			c.sendDeflated(gws.OpText, message)
			_, got, _ := c.message()
			require.Equal(t, message, got)
		}
		c.Send("123456", "12345") // plain ones count once
		c.Expect("12345")
		assert.EqualValues(t, 1, s.Stats().RateLimited)
	})
}
