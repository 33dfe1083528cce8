package ws_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestClientIdentity(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
		ids := make(map[string]bool)
		for range 50 {
			c, sc := s.DialClient(w)
			assert.GreaterOrEqual(t, len(sc.ID), 22, "128 bits in base64")
			assert.False(t, ids[sc.ID])
			ids[sc.ID] = true
			assert.Zero(t, sc.UserID)
			assert.Equal(t, c.LocalAddr().String(), sc.RemoteAddr())
			got, ok := s.GetClient(sc.ID)
			assert.True(t, ok)
			assert.Same(t, sc, got)
		}
		assert.Equal(t, 50, s.GetClientCount())

		_, sc := s.DialClient(w, "id=ann", "user=-7", "role=admin")
		assert.Equal(t, "ann", sc.ID)
		assert.Equal(t, int64(-7), sc.UserID)
		role, ok := sc.GetMetadata("role")
		assert.True(t, ok)
		assert.Equal(t, "admin", role)
		got, ok := s.GetClient("ann")
		assert.True(t, ok)
		assert.Same(t, sc, got)

		_, ok = s.GetClient("bob")
		assert.False(t, ok)
		_, ok = s.GetClient("")
		assert.False(t, ok)
	})
}

func TestMetadata(t *testing.T) {
	s := harness.Start(t)
	_, sc := s.DialClient(harness.Native)
	_, ok := sc.GetMetadata("a")
	assert.False(t, ok)
	sc.SetMetadata("a", 1)
	sc.SetMetadata("a", []string{"x"})
	sc.SetMetadata("nil", nil)
	v, ok := sc.GetMetadata("a")
	assert.True(t, ok)
	assert.Equal(t, []string{"x"}, v)
	v, ok = sc.GetMetadata("nil")
	assert.True(t, ok)
	assert.Nil(t, v)
}

func TestSends(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithQueueBytes(4<<20)) // so that 1 MiB may follow the bytes that just left
		c, sc := s.DialClient(w)
		payload := []byte("borrowed")
		require.NoError(t, sc.SendBytes(payload))
		copy(payload, "reused!!")
		require.NoError(t, sc.SendJSON(map[string]int{"a": 1}))
		require.NoError(t, sc.SendBytes(nil))
		c.Expect("borrowed", `{"a":1}`, "")
		require.NoError(t, sc.SendBytesHigh([]byte("high")))
		c.Expect("high")

		require.NoError(t, sc.SendBinary([]byte{0, 1, 255}))
		f := c.Next()
		assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
		assert.Equal(t, []byte{0, 1, 255}, f.Payload)

		p := ws.Prepare(ws.OpBinary, []byte("twice"))
		require.NoError(t, sc.SendPrepared(p))
		require.NoError(t, sc.SendPrepared(p))
		for range 2 {
			f := c.Next()
			assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
			assert.Equal(t, "twice", string(f.Payload))
		}
		for _, n := range []int{125, 126, 65535, 65536, 1 << 20} {
			text := strings.Repeat("x", n)
			require.NoError(t, sc.SendBytes([]byte(text)))
			c.Expect(text)
		}
	})
}

func TestPreparePanicsForControlFrames(t *testing.T) {
	for _, op := range []ws.Opcode{0, 8, 9, 10, 3} {
		assert.Panics(t, func() { ws.Prepare(op, nil) }, "opcode %d", op)
	}
}

// One goroutine's messages arrive in its order, whichever method sent them.
func TestSendOrder(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMessageQueueSize(10_000))
		c, sc := s.DialClient(w)
		require.NoError(t, sc.JoinRoom("r"))
		const senders, each = 4, 300
		var wg sync.WaitGroup
		for g := range senders {
			wg.Go(func() {
				for i := range each {
					text := fmt.Appendf(nil, "%d %d", g, i)
					switch i % 3 {
					case 0:
						assert.NoError(t, sc.SendBytes(text))
					case 1:
						assert.NoError(t, s.BroadcastToRoom("r", text, nil))
					default:
						assert.NoError(t, sc.SendPrepared(ws.Prepare(ws.OpText, text)))
					}
				}
			})
		}
		var next [senders]int
		for range senders * each {
			var g, i int
			_, err := fmt.Sscan(string(c.Next().Payload), &g, &i)
			require.NoError(t, err)
			require.Equal(t, next[g], i, "sender %d", g)
			next[g]++
		}
		wg.Wait()
	})
}

func TestSendOnFullQueue(t *testing.T) {
	sends := []struct {
		name string
		send func(*ws.Client) error
	}{
		{"SendBytes", func(c *ws.Client) error { return c.SendBytes([]byte("x")) }},
		{"Send", func(c *ws.Client) error { return c.Send([]byte("x")) }},
		{"SendBinary", func(c *ws.Client) error { return c.SendBinary([]byte("x")) }},
		{"SendPrepared", func(c *ws.Client) error { return c.SendPrepared(ws.Prepare(ws.OpText, []byte("x"))) }},
		{"SendJSON", func(c *ws.Client) error { return c.SendJSON("x") }},
		{"SendResponse", func(c *ws.Client) error { return c.SendResponse("", 200, "x", nil) }},
		{"SendError", func(c *ws.Client) error { return c.SendError("", 400, "x") }},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMessageQueueSize(4), harness.WithDeepQueue)
		c, sc := s.DialClient(w)
		s.Stall(sc)
		for i := range 3 {
			require.NoError(t, sc.SendBytes(fmt.Appendf(nil, "queued %d", i)))
		}
		queued := sc.QueuedBytes()
		assert.Greater(t, queued, len(harness.BigMessage))
		for i, tt := range sends {
			require.ErrorIs(t, tt.send(sc), ws.ErrChannelFull, tt.name)
			assert.EqualValues(t, i+1, s.Stats().Total.Drops.Full, "a refusal is counted once")
		}
		assert.Equal(t, queued, sc.QueuedBytes(), "refused messages are not counted")
		assert.False(t, sc.IsClosed())

		c.Expect(harness.BigMessage, "queued 0", "queued 1", "queued 2")
		harness.Eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "%d bytes queued", sc.QueuedBytes())
		require.NoError(t, sc.SendBytes([]byte("again")))
		c.Expect("again")
	})
}

func TestQueueBytes(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithQueueBytes(1000))
		c, sc := s.DialClient(w)
		assert.Zero(t, sc.QueuedBytes())
		s.Stall(sc) // an empty queue takes one message of any size
		require.ErrorIs(t, sc.SendBytes([]byte("one more")), ws.ErrChannelFull)
		c.Expect(harness.BigMessage)
		harness.Eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "the queue did not drain")
		require.NoError(t, sc.SendBytes([]byte("now")))
		c.Expect("now")
	})
}

func TestSendBytesHighOvertakes(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, harness.WithDeepQueue)
		c, sc := s.DialClient(w)
		require.NoError(t, sc.JoinRoom("r"))
		s.Stall(sc)
		require.NoError(t, sc.SendBytes([]byte("normal 1")))
		require.NoError(t, s.BroadcastToRoom("r", []byte("normal 2"), nil))
		require.NoError(t, sc.SendBytesHigh([]byte("high 1")))
		require.NoError(t, sc.SendBytes([]byte("normal 3")))
		require.NoError(t, sc.SendBytesHigh([]byte("high 2")))
		c.Expect(harness.BigMessage, "high 1", "high 2", "normal 1", "normal 2", "normal 3")
	})
}

func TestClose(t *testing.T) {
	tests := []struct {
		name   string
		close  func(*ws.Client)
		code   int
		reason string
	}{
		{"Close", (*ws.Client).Close, 1000, ""},
		{"reason", func(c *ws.Client) { c.CloseWithCode(ws.ClosePolicyViolation, "spam") }, 1008, "spam"},
		{"private code", func(c *ws.Client) { c.CloseWithCode(4999, "mine") }, 4999, "mine"},
		{"registered code", func(c *ws.Client) { c.CloseWithCode(3000, "") }, 3000, ""},
		{"try again later", func(c *ws.Client) { c.CloseWithCode(ws.CloseTryAgainLater, "") }, 1013, ""},
		{"1005 is never sent", func(c *ws.Client) { c.CloseWithCode(1005, "late") }, 1000, "late"},
		{"1006 is never sent", func(c *ws.Client) { c.CloseWithCode(1006, "") }, 1000, ""},
		{"0 with a reason", func(c *ws.Client) { c.CloseWithCode(0, "late") }, 1000, "late"},
		{"negative", func(c *ws.Client) { c.CloseWithCode(-1, "") }, 1000, ""},
		{"too large", func(c *ws.Client) { c.CloseWithCode(1<<16+1000, "") }, 1000, ""},
		{
			"the first counts", func(c *ws.Client) { c.CloseWithCode(4000, "a"); c.CloseWithCode(4001, "b"); c.Close() },
			4000, "a",
		},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c, sc := s.DialClient(w)
				assert.False(t, sc.IsClosed())
				require.NoError(t, sc.SendBytes([]byte("before")))
				tt.close(sc)
				assert.True(t, sc.IsClosed(), "at once")
				c.Expect("before")
				assert.Equal(t, tt.reason, c.ExpectClose(tt.code))
				c.Finish(tt.code)
				harness.Eventually(t, func() bool { _, ok := s.GetClient(sc.ID); return !ok }, "still registered")
				assert.True(t, sc.IsClosed())
			})
		}
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "%d clients left", s.GetClientCount())
	})
}

// Code 0 or 1005 without a reason sends a close frame without a code.
func TestCloseWithoutCode(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		for _, code := range []int{0, 1005} {
			ended := s.Events(ws.EventClientDisconnected)
			c, sc := s.DialClient(w)
			sc.CloseWithCode(code, "")
			f := c.Next()
			assert.Equal(t, gobwas.OpClose, f.Header.OpCode)
			assert.Empty(t, f.Payload)
			c.WriteRaw(harness.Frame(gobwas.OpClose, ""))
			c.ExpectEOF()
			end, ok := harness.Receive(t, ended, "no event").Data.(*ws.CloseError)
			require.True(t, ok)
			assert.Equal(t, 1005, end.Code)
			assert.False(t, end.Remote)
		}
	})
}

// Text of a client's cannot forge a line of the log.
func TestErrorsQuoteReasons(t *testing.T) {
	require.EqualError(t, &ws.CloseError{Code: 1000}, "ws: closed with code 1000")
	require.EqualError(t, &ws.CloseError{Code: 4000, Reason: "bye\n12:00 root logged in\u2028"},
		`ws: closed with code 4000: "bye\n12:00 root logged in\u2028"`)
	require.EqualError(t, &ws.HandshakeError{Status: 403, Reason: "no user \x1b[2Jann"},
		`ws: handshake refused with status 403: "no user \x1b[2Jann"`)
}

func TestCloseReasonIsCut(t *testing.T) {
	s := harness.Start(t)
	c, sc := s.DialClient(harness.Native)
	sc.CloseWithCode(4000, strings.Repeat("ä", 100))
	reason := c.ExpectClose(4000)
	assert.LessOrEqual(t, len(reason), 123)
	assert.GreaterOrEqual(t, len(reason), 120)
	assert.True(t, utf8.ValidString(reason), "%q", reason)
}

// A client that does not answer our close frame is cut off.
func TestCloseTimeout(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, func(c *ws.Config) { c.CloseTimeout = 50 * time.Millisecond })
		ends := s.Events(ws.EventClientDisconnected)
		c, sc := s.DialClient(w)
		sc.CloseWithCode(4000, "bye")
		end := harness.Receive(t, ends, "no end")
		assert.Equal(t, sc.ID, end.ClientID)
		assert.Equal(t, 4000, end.Data.(*ws.CloseError).Code)
		assert.False(t, end.Data.(*ws.CloseError).Remote)
		assert.Equal(t, "bye", c.ExpectClose(4000))
	})
}

func TestErrorsOfAClosedClient(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		sends := map[string]func(*ws.Client) error{
			"SendBytes":     func(c *ws.Client) error { return c.SendBytes([]byte("x")) },
			"SendBytesHigh": func(c *ws.Client) error { return c.SendBytesHigh([]byte("x")) },
			"SendBinary":    func(c *ws.Client) error { return c.SendBinary(nil) },
			"SendJSON":      func(c *ws.Client) error { return c.SendJSON(1) },
			"SendPrepared":  func(c *ws.Client) error { return c.SendPrepared(ws.Prepare(ws.OpText, nil)) },
			"SendResponse":  func(c *ws.Client) error { return c.SendResponse("1", 200, "", nil) },
			"SendError":     func(c *ws.Client) error { return c.SendError("1", 500, "") },
			"JoinRoom":      func(c *ws.Client) error { return c.JoinRoom("late") },
		}
		check := func(sc *ws.Client) {
			t.Helper()
			for name, send := range sends {
				err := send(sc)
				require.ErrorIs(t, err, ws.ErrConnectionClosed, name)
				require.ErrorIs(t, err, net.ErrClosed, name)
			}
			sc.Close()
			sc.LeaveRoom("r")
			sc.SetMetadata("k", "v")
			_, _ = sc.GetMetadata("k")
			assert.Zero(t, sc.QueuedBytes())
			assert.NotEmpty(t, sc.RemoteAddr())
			assert.True(t, sc.IsClosed())
		}
		c, sc := s.DialClient(w)
		sc.Close()
		check(sc) // closing
		c.ExpectClose(1000)
		c.Finish(1000)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "still connected")
		check(sc) // closed
		assert.Empty(t, sc.GetRooms())
		_, ok := s.GetRoom("late")
		assert.False(t, ok, "a room that nobody could join was created")
		assert.True(t, errors.Is(ws.ErrConnectionClosed, net.ErrClosed))
	})
}

// All methods may be called at once, while the connection closes too.
func TestClientFromManyGoroutines(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithAuthenticate(harness.ByQuery))
		harness.RegisterGreetings(t, s.Manager)
		c, sc := s.DialClient(w, "user=3")
		var stopped atomic.Bool
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := 0; !stopped.Load(); i++ {
					_ = sc.SendBytes([]byte("m"))
					_ = sc.SendBytesHigh([]byte("h"))
					_ = sc.SendError("1", 400, "e")
					_ = sc.JoinRoom(fmt.Sprint("room ", (g+i)%3))
					_ = s.BroadcastToRoom(fmt.Sprint("room ", i%3), []byte("b"), nil)
					s.BroadcastToUser(3, []byte("u"))
					s.BroadcastAll([]byte("a"))
					sc.LeaveRoom(fmt.Sprint("room ", i%3))
					s.DeleteRoom(fmt.Sprint("room ", (i+1)%3))
					_ = sc.GetRooms()
					sc.SetMetadata("k", i)
					_, _ = sc.GetMetadata("k")
					_, _, _ = sc.RemoteAddr(), sc.IsClosed(), sc.QueuedBytes()
					_, _ = s.GetRoomMembers("room 1"), s.Stats()
				}
			})
		}
		for range 20 {
			c.Send(harness.Request("only", "1", ""))
			c.Next()
		}
		sc.Close()
		c.ExpectClose(1000)
		c.Finish(1000)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "still connected")
		stopped.Store(true)
		wg.Wait()
		assert.Empty(t, sc.GetRooms())
		for i := range 3 {
			assert.Empty(t, s.GetRoomMembers(fmt.Sprint("room ", i)))
		}
	})
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		t.Parallel()
		s := harness.Start(t, ws.WithHeartbeatInterval(20*time.Millisecond), ws.WithHeartbeatTimeout(10*time.Second))
		ends := s.Events(ws.EventClientDisconnected)
		alive, aliveClient := s.DialClient(w)
		_, deadClient := s.DialClient(w)
		for begin := time.Now(); len(ends) == 0 && time.Since(begin) < harness.Patience; {
			f := alive.ReadFrame()
			require.Equal(t, gobwas.OpPing, f.Header.OpCode)
			alive.WriteRaw(harness.Frame(gobwas.OpPong, string(f.Payload)))
		}
		end := harness.Receive(t, ends, "the silent client was not found")
		assert.Equal(t, deadClient.ID, end.ClientID)
		assert.Equal(t, 1006, end.Data.(*ws.CloseError).Code)
		assert.False(t, aliveClient.IsClosed())
	})
}

// Any inbound byte counts as life, not pongs alone.
func TestHeartbeatCountsMessages(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, ws.WithHeartbeatInterval(20*time.Millisecond), ws.WithHeartbeatTimeout(8*time.Second))
	s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	c, sc := s.DialClient(harness.Native)
	for begin := time.Now(); time.Since(begin) < 12*time.Second; {
		if f := c.ReadFrame(); f.Header.OpCode == gobwas.OpPing { // it is read, and not answered
			c.Send("x")
			c.Expect("x")
		}
	}
	assert.False(t, sc.IsClosed())
}

func TestMessageSizeLimit(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithMessageSizeLimit(1000))
		s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
		failures := s.Events(ws.EventError)
		text := strings.Repeat("x", 1000)
		c := s.Dial(w)
		c.Send(text)
		c.Expect(text)
		c.WriteRaw(harness.Fragment(1, false, text[:500]) + harness.Fragment(0, true, text[500:]))
		c.Expect(text)
		c.Send(text + "x")
		c.ExpectClose(1009)
		err, _ := harness.Receive(t, failures, "no EventError").Data.(error)
		require.ErrorIs(t, err, ws.ErrMessageTooLarge)

		c = s.Dial(w)
		c.WriteRaw(harness.Fragment(1, false, text) + harness.Fragment(0, false, "x"))
		c.ExpectClose(1009)

		c = s.Dial(w) // the length alone is enough
		c.WriteRaw("\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff")
		c.ExpectClose(1009)
	})
}

// The default limit is 512 KiB.
func TestDefaultMessageSizeLimit(t *testing.T) {
	s := harness.Start(t)
	s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendJSON(len(payload)) })
	c := s.Dial(harness.Native)
	c.Send(strings.Repeat("x", 512<<10))
	c.Expect("524288")
	c.Send(strings.Repeat("x", 512<<10+1))
	c.ExpectClose(1009)
}

// Each idle connection costs a Client.
func TestClientSize(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(ws.Client{}), uintptr(176))
	assert.LessOrEqual(t, ws.LimitedClientSize, uintptr(208), "with a rate limit")
}

// TestManyRooms joins and leaves rooms at random, beside a plain list.
func TestManyRooms(t *testing.T) {
	s := harness.Start(t)
	_, c := s.DialClient(harness.Native)
	require.NoError(t, c.JoinRoom("only"))
	assert.False(t, ws.HasLazyState(c), "one room needs none")
	c.LeaveRoom("only")
	want := []string{}
	for step := range 2000 {
		rooms := 5 + 95*(step/500%2) // few, many, few and many
		id := fmt.Sprint(rand.IntN(rooms))
		in := -1
		for i := range want {
			if want[i] == id {
				in = i
			}
		}
		switch {
		case in < 0:
			require.NoError(t, c.JoinRoom(id))
			want = append(want, id)
		case rand.IntN(2) == 0:
			c.LeaveRoom(id)
			want = append(want[:in], want[in+1:]...)
		default:
			require.Error(t, c.JoinRoom(id))
		}
		require.Equal(t, want, c.GetRooms(), "in the order of joining")
	}
	c.SetMetadata("k", "v")
	for _, id := range want {
		c.LeaveRoom(id)
	}
	assert.Empty(t, c.GetRooms())
	value, _ := c.GetMetadata("k")
	assert.Equal(t, "v", value, "metadata stays")

	_, other := s.DialClient(harness.Native)
	require.NoError(t, other.JoinRoom("a"))
	require.NoError(t, other.JoinRoom("b"))
	assert.True(t, ws.HasLazyState(other))
	other.LeaveRoom("a")
	assert.Equal(t, []string{"b"}, other.GetRooms())
	assert.False(t, ws.HasLazyState(other), "given back")
}
