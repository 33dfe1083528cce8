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

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// deflateClient is a client that has offered permessage-deflate.
type deflateClient struct {
	*harness.Client
	answer         string
	takeover       bool
	sent, received []byte // the history of each direction
	z              *codec.Deflater
}

// dialDeflate connects with an offer.
func dialDeflate(s *harness.Server, w harness.Way, offer string) *deflateClient {
	s.T.Helper()
	c := s.DialTCP(w)
	c.WriteRaw(harness.UpgradeRequest("/ws", "Sec-WebSocket-Extensions: "+offer+"\r\n"))
	resp, body := c.ReadResponse()
	require.Equal(s.T, http.StatusSwitchingProtocols, resp.StatusCode, body)
	answer := resp.Header.Get("Sec-WebSocket-Extensions")
	return &deflateClient{
		Client: c, answer: answer, z: codec.NewDeflater(6),
		takeover: answer != "" && !strings.Contains(answer, "server_no_context_takeover"),
	}
}

// sendDeflated sends one compressed message.
func (c *deflateClient) sendDeflated(op gobwas.OpCode, payload string) {
	c.T.Helper()
	c.rawDeflated(op, string(c.z.Append(nil, []byte(payload), c.sent, 15)))
	if c.takeover {
		c.sent = codec.AppendHistory(c.sent, []byte(payload), 15)
	}
}

// rawDeflated sends a frame with RSV1 and this payload.
func (c *deflateClient) rawDeflated(op gobwas.OpCode, payload string) {
	c.T.Helper()
	f := gobwas.MaskFrameInPlaceWith(gobwas.NewFrame(op, true, []byte(payload)), [4]byte{1, 2, 3, 4})
	f.Header.Rsv = gobwas.Rsv(true, false, false)
	var b bytes.Buffer
	require.NoError(c.T, gobwas.WriteFrame(&b, f))
	c.WriteRaw(b.String())
}

// message reads one data message, and reports whether it came compressed.
func (c *deflateClient) message() (op gobwas.OpCode, payload string, compressed bool) {
	c.T.Helper()
	f := c.Next()
	if !f.Header.Rsv1() {
		return f.Header.OpCode, string(f.Payload), false
	}
	got, err := codec.Inflate(nil, f.Payload, c.received, 0)
	require.NoError(c.T, err)
	if c.takeover {
		c.received = codec.AppendHistory(c.received, got, 15)
	}
	return f.Header.OpCode, string(got), true
}

// Messages of all sizes come back, compressed from the threshold on, on both
// ways, in both modes, with and without context takeover.
func TestCompressedEcho(t *testing.T) {
	words := make([]byte, 0, 400_000)
	for r := rand.New(rand.NewPCG(1, 1)); len(words) < 300_000; {
		words = fmt.Appendf(words, "word%d ", r.IntN(500))
	}
	for _, takeover := range []bool{false, true} {
		for _, mode := range []ws.HandlerMode{ws.Inline, ws.Pooled} {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, ws.WithHandlerMode(mode), ws.WithCompression(ws.CompressionConfig{ContextTakeover: takeover}))
				s.HandleRaw(harness.Echo)
				c := dialDeflate(s, w, "permessage-deflate; client_max_window_bits")
				require.NotEmpty(t, c.answer)
				require.Equal(t, takeover, c.takeover)
				for round := range 3 {
					for _, n := range []int{0, 1, 100, 511, 512, 5000, 70_000, 300_000} {
						want := string(words[:n])
						c.sendDeflated(gobwas.OpText, want)
						op, got, compressed := c.message()
						require.Equal(t, gobwas.OpText, op)
						require.True(t, want == got, "%d bytes, round %d", n, round)
						require.Equal(t, n >= 512, compressed, "%d bytes", n)
					}
					c.Send("plain") // may be mixed in at any time
					c.Expect("plain")
				}
				random := make([]byte, 2000)
				for i := range random {
					random[i] = byte(rand.Uint32())
				}
				c.sendDeflated(gobwas.OpBinary, string(random))
				op, got, compressed := c.message()
				require.Equal(t, gobwas.OpBinary, op)
				require.Equal(t, string(random), got)
				require.Equal(t, takeover, compressed,
					"a message that does not become shorter is compressed only to keep the context")
			})
		}
	}
}

// With context takeover a message that was sent before costs next to nothing.
func TestContextTakeoverShortens(t *testing.T) {
	s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{ContextTakeover: true}))
	c, sc := dialDeflate(s, harness.Native, "permessage-deflate"), (*ws.Client)(nil)
	s.RangeClients(func(c *ws.Client) bool { sc = c; return false })
	random := make([]byte, 1000)
	for i := range random {
		random[i] = 'a' + byte(rand.Uint32()%26)
	}
	for i, most := range []int{1010, 60} {
		require.NoError(t, sc.SendBytes(random))
		f := c.Next()
		require.True(t, f.Header.Rsv1())
		require.LessOrEqual(t, len(f.Payload), most, "message %d", i)
		got, err := codec.Inflate(nil, f.Payload, c.received, 0)
		require.NoError(t, err)
		require.Equal(t, string(random), string(got))
		c.received = codec.AppendHistory(c.received, got, 15)
	}
}

// A broadcast reaches members with different windows, and those without the
// extension.
func TestCompressedBroadcast(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{ContextTakeover: takeover, Threshold: 100}))
		var members []*deflateClient
		for i := range 40 {
			offer := "permessage-deflate"
			if i%4 > 1 {
				offer += fmt.Sprintf("; server_max_window_bits=%d", 8+i%8)
			}
			if i%4 == 0 {
				offer = "x-other"
			}
			members = append(members, dialDeflate(s, harness.Native, offer))
		}
		s.RangeClients(func(c *ws.Client) bool { require.NoError(t, c.JoinRoom("news")); return true })
		p := ws.Prepare(ws.OpBinary, []byte(strings.Repeat("prepared ", 3000)))
		for i := range 20 {
			text := fmt.Sprint(i, strings.Repeat(" some text", i*i))
			require.NoError(t, s.BroadcastToRoom("news", []byte(text), nil))
			require.NoError(t, s.BroadcastPrepared("news", p, nil))
			for n, c := range members {
				op, got, compressed := c.message()
				require.Equal(t, gobwas.OpText, op)
				require.True(t, text == got, "member %d, message %d", n, i)
				require.Equal(t, n%4 != 0 && len(text) >= 100, compressed)
				op, got, compressed = c.message()
				require.Equal(t, gobwas.OpBinary, op)
				require.True(t, got == strings.Repeat("prepared ", 3000))
				require.Equal(t, n%4 != 0, compressed)
			}
		}
	}
}

// A client with context takeover that stalls loses messages by the policy; later messages can be
// inflated all the same.
func TestContextTakeoverSurvivesDrops(t *testing.T) {
	for _, policy := range []ws.OverflowPolicy{ws.DropNewest, ws.DropOldest} {
		s := harness.Start(t, ws.WithOverflowPolicy(policy), ws.WithMessageQueueSize(20), ws.WithQueueBytes(1<<30),
			ws.WithCompression(ws.CompressionConfig{ContextTakeover: true}))
		c := dialDeflate(s, harness.Native, "permessage-deflate")
		var sc *ws.Client
		s.RangeClients(func(c *ws.Client) bool { sc = c; return false })
		r, n := rand.New(rand.NewPCG(3, 3)), 0
		for s.Stats().Total.Drops.Full < 100 {
			text := make([]byte, 64<<10) // hardly compressible, and similar to the one before
			for i := range text {
				text[i] = 'a' + byte(r.Uint32()%26)
			}
			for range 3 {
				_ = sc.Send(fmt.Appendf(nil, "%08d%s", n, text), ws.TTL(harness.Patience*100))
				_ = sc.SendBytesHigh([]byte(fmt.Sprintf("%08d high", n)))
				n++
			}
		}
		end := make(chan error, 1)
		go func() { // the queue is written down while the test reads
			harness.Holds(func() bool { return sc.QueuedBytes() == 0 })
			end <- sc.SendBytes([]byte(fmt.Sprintf("%08d%s", n, strings.Repeat("x", 2000))))
		}()
		last, got := -1, 0
		for last != n {
			_, text, _ := c.message()
			var number int
			_, err := fmt.Sscanf(text, "%08d", &number)
			require.NoError(t, err)
			if !strings.HasSuffix(text, " high") {
				require.GreaterOrEqual(t, number, last)
				last = number
				got++
			}
		}
		require.NoError(t, <-end)
		t.Logf("policy %d: %d of %d messages", policy, got, n)
		require.Less(t, got, n)
	}
}

// Invalid messages close with the right code, and nothing of them reaches the handler.
func TestBadCompression(t *testing.T) {
	bomb := string(codec.NewDeflater(9).Append(nil, make([]byte, 64<<20), nil, 15))
	for _, tt := range []struct {
		name    string
		payload string
		op      gobwas.OpCode
		code    codec.CloseCode
	}{
		{"garbage", "\xff\xff\xff", gobwas.OpText, codec.CloseInvalidPayload},
		{"bomb", bomb, gobwas.OpBinary, codec.CloseMessageTooBig},
		{
			"not UTF-8", string(codec.NewDeflater(1).Append(nil, []byte("abc\xff"), nil, 15)), gobwas.OpText,
			codec.CloseInvalidPayload,
		},
		{"control frame", "", gobwas.OpPing, codec.CloseProtocolError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{}))
			s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { t.Error("it reached the handler") })
			c := dialDeflate(s, harness.Native, "permessage-deflate")
			c.rawDeflated(tt.op, tt.payload)
			c.ExpectClose(int(tt.code))
		})
	}
	s := harness.Start(t, ws.WithCompression(ws.CompressionConfig{}))
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate; =\r\n"))
	resp, _ := c.ReadResponse()
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

// Off, the extension is declined and RSV1 refused.
func TestCompressionOff(t *testing.T) {
	s := harness.Start(t)
	c := dialDeflate(s, harness.Native, "permessage-deflate")
	require.Empty(t, c.answer)
	c.sendDeflated(gobwas.OpText, "hello")
	c.ExpectClose(int(codec.CloseProtocolError))
}

// BenchmarkEchoCompression sends batches of 64 messages of 512 B, similar to messages of
// applications, over one connection, and reads the echoes: the time of both sides for one message.
func BenchmarkEchoCompression(b *testing.B) {
	message := strings.Repeat(`{"type":"notify","event":"price","data":{"id":1234,"bid":1.0842}} `, 9)[:512]
	for _, compressed := range []bool{false, true} {
		b.Run(fmt.Sprintf("compressed=%v", compressed), func(b *testing.B) {
			s := harness.Start(b, ws.WithHandlerMode(ws.Inline), ws.WithEnableCompression(compressed))
			s.HandleRaw(harness.Echo)
			c := dialDeflate(s, harness.Native, "permessage-deflate")
			one := harness.Frame(gobwas.OpText, message)
			if compressed {
				f := gobwas.MaskFrameInPlace(gobwas.NewTextFrame(codec.NewDeflater(1).Append(nil, []byte(message), nil, 15)))
				f.Header.Rsv = gobwas.Rsv(true, false, false)
				one = string(gobwas.MustCompileFrame(f))
			}
			const batch = 64
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for i := 0; i < b.N; i += batch {
				c.WriteRaw(strings.Repeat(one, batch))
				for range batch {
					if f := c.ReadFrame(); f.Header.Rsv1() != compressed {
						b.Fatal("not the echo")
					}
				}
			}
		})
	}
}

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
				c.sendDeflated(gobwas.OpText, tt.message)
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
	part := func(op gobwas.OpCode, fin, compressed bool, payload []byte) {
		f := gobwas.MaskFrameInPlaceWith(gobwas.NewFrame(op, fin, payload), [4]byte{1, 2, 3, 4})
		f.Header.Rsv = gobwas.Rsv(compressed, false, false)
		c.WriteRaw(string(gobwas.MustCompileFrame(f)))
	}
	part(gobwas.OpText, false, true, z[:len(z)/10])
	part(gobwas.OpPing, true, false, []byte("read"))
	require.Equal(t, gobwas.OpPong, c.ReadFrame().Header.OpCode)
	part(gobwas.OpContinuation, true, false, z[len(z)/10:])
	_, got, _ := c.message()
	require.True(t, got == message)
}

// A client that makes the loop inflate much in one read is paused, so that others are served between. Its messages
// are handled in order, and none is lost.
func TestInflateShare(t *testing.T) {
	messages := harness.FewerUnderRace(100)
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode,
		start func(opts ...ws.Option) *harness.Endpoint,
	) {
		s := start(ws.WithLoops(1), ws.WithCompression(ws.CompressionConfig{MaxRatio: -1}))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			_ = c.SendBytes([]byte(strconv.Itoa(len(payload))))
		})
		c := connectDeflate(s)
		healthy := s.Connect()
		var burst strings.Builder
		for i := range messages {
			z := c.z.Append(nil, bytes.Repeat([]byte("a"), 400_000+i), nil, 15)
			f := gobwas.MaskFrameInPlaceWith(gobwas.NewTextFrame(z), [4]byte{1, 2, 3, 4})
			f.Header.Rsv = gobwas.Rsv(true, false, false)
			burst.Write(gobwas.MustCompileFrame(f))
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
	f := gobwas.MaskFrameInPlaceWith(gobwas.NewTextFrame(bytes.Clone(payload)), [4]byte{1, 2, 3, 4})
	f.Header.Rsv = gobwas.Rsv(true, false, false)
	return string(gobwas.MustCompileFrame(f))
}

// A message that takes long to inflate is inflated in steps, with the connection paused, and those
// of other connections wait for it. They are handled in order; plain messages do not wait.
func TestInflateInSteps(t *testing.T) {
	text, deflated := dearMessage(t)
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode,
		start func(opts ...ws.Option) *harness.Endpoint,
	) {
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

		burst := deflatedFrame(deflated) + harness.Frame(gobwas.OpText, "plain") + deflatedFrame(deflated)
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
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode,
		start func(opts ...ws.Option) *harness.Endpoint,
	) {
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
			c.WriteRaw(deflatedFrame(deflated) + harness.Frame(gobwas.OpText, "plain"))
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
		s := harness.Start(t, mode, ws.WithCompression(ws.CompressionConfig{}),
			ws.WithRateLimit(ws.RateLimit{Bytes: never, ByteBurst: burst}))
		s.HandleRaw(harness.Echo)
		c := dialDeflate(s, w, "permessage-deflate")
		for range 3 {
			c.sendDeflated(gobwas.OpText, message)
			_, got, _ := c.message()
			require.Equal(t, message, got)
		}
		c.Send("123456", "12345") // plain ones count once
		c.Expect("12345")
		assert.EqualValues(t, 1, s.Stats().RateLimited)
	})
}
