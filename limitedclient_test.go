package ws_test

import (
	"strconv"
	"strings"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// never is a rate at which no bucket gains anything while a test runs.
const never = 1e-9

// requests encodes "note" requests with the ids from first to last.
func requests(first, last int) (messages []string) {
	for id := first; id <= last; id++ {
		messages = append(messages, harness.Request("note", strconv.Itoa(id), ""))
	}
	return messages
}

// registerNote registers "note", which answers and keeps the ids that it saw.
func registerNote(t *testing.T, m *ws.Manager) (noted <-chan string) {
	t.Helper()
	ids := make(chan string, 1000)
	require.NoError(t, m.Register("note", func(c *ws.Client, msg *ws.Message) error {
		ids <- msg.RequestID
		return c.SendResponse(msg.RequestID, 200, "success", nil)
	}))
	return ids
}

// expectAnswers reads the answers to the requests 1 to n: up to admitted they
// are served, the others refused. Each of the two kinds comes in order.
func expectAnswers(c *harness.Client, admitted, n int) {
	c.T.Helper()
	served, refused := 0, admitted
	for range n {
		e := c.ReadEnvelope()
		want := &served
		if e.Code != 200 {
			require.Equal(c.T, 429, e.Code)
			require.Equal(c.T, "too many requests", e.Message)
			want = &refused
		}
		*want++
		require.Equal(c.T, strconv.Itoa(*want), e.RequestID)
	}
	require.Equal(c.T, admitted, served)
}

// What is over the limit is refused, in either measure; what is within it is
// handled in order. Each client has a limit of its own.
func TestRateLimit(t *testing.T) {
	length := int64(len(requests(1, 1)[0]))
	tests := map[string]ws.RateLimit{
		"messages":           {Messages: never, MessageBurst: 4},
		"bytes":              {Bytes: never, ByteBurst: 4 * length},
		"bytes, uneven":      {Bytes: never, ByteBurst: 5*length - 1},
		"messages and bytes": {Messages: never, MessageBurst: 4, Bytes: never, ByteBurst: 5 * length},
		"bytes and messages": {Messages: never, MessageBurst: 5, Bytes: never, ByteBurst: 4 * length},
	}
	for name, limit := range tests {
		t.Run(name, func(t *testing.T) {
			harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
				s := harness.Start(t, mode, ws.WithRateLimit(limit), ws.WithLoops(1))
				noted, failures := registerNote(t, s.Manager), s.Events(ws.EventError)
				c, other := s.Dial(w), s.Dial(w)
				c.Send(requests(1, 9)...)
				expectAnswers(c, 4, 9)
				assert.EqualValues(t, 5, s.Stats().RateLimited)
				assert.EqualValues(t, 9, s.Stats().Total.MessagesIn)
				assert.Len(t, noted, 4)
				other.Send(requests(1, 4)...)
				expectAnswers(other, 4, 4)
				c.Sync()
				assert.EqualValues(t, 5, s.Stats().RateLimited)
				assert.Empty(t, failures, "published before the client is closed")
			})
		})
	}
}

// Within the limit nothing is refused.
func TestRateLimitWithin(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithRateLimit(ws.RateLimit{Messages: 1e9, Bytes: 1e12}), ws.WithMailboxSize(200))
		registerNote(t, s.Manager)
		c := s.Dial(w)
		c.Send(requests(1, 200)...)
		expectAnswers(c, 200, 200)
		assert.Zero(t, s.Stats().RateLimited)
	})
}

// Messages without an ID are answered without one, and do not count as invalid.
func TestRateLimitWithoutID(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		metrics := harness.NewRecorder()
		limit := ws.RateLimit{Messages: never, MessageBurst: 1, Tolerance: 100}
		s := harness.Start(t, mode, ws.WithRateLimit(limit), ws.WithMetrics(metrics))
		registerNote(t, s.Manager)
		c := s.Dial(w)
		c.Send(requests(1, 1)...)
		c.ExpectReply("1", 200, "")
		for range 5 {
			c.Send("", "no JSON", `{"request_id":"cut off`, `{"type":"request","event":"note"}`, `{"request_id":7}`)
			c.WriteRaw(harness.Frame(gws.OpBinary, "\x00"))
			for _, id := range []string{"", "", "", "", "7", ""} {
				c.ExpectReply(id, 429, "too many requests")
			}
		}
		c.Send(`{"request_id":"no \u0074ype"}`)
		c.ExpectReply("no type", 429, "too many requests")
		assert.Zero(t, metrics.Get("invalid"))
	})
}

// A client that goes on sending is closed, and nothing else of it is handled.
// The others do not notice.
func TestRateLimitFlood(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		limit := ws.RateLimit{Messages: never, MessageBurst: 2, Tolerance: 3}
		s := harness.Start(t, mode, ws.WithRateLimit(limit), ws.WithLoops(1))
		noted, failures := registerNote(t, s.Manager), s.Events(ws.EventError)
		ends := s.Events(ws.EventClientDisconnected)
		other := s.Dial(w)
		c, sc := s.DialClient(w)
		c.Send(requests(1, 2)...)
		expectAnswers(c, 2, 2)
		c.Send(requests(3, 500)...)
		for id := 3; id <= 5; id++ {
			c.ExpectReply(strconv.Itoa(id), 429, "too many requests")
		}
		f := c.Next()
		require.Equal(t, gws.OpClose, f.Header.OpCode, "payload %q", f.Payload)
		code, reason := gws.ParseCloseFrameData(f.Payload)
		assert.EqualValues(t, 1008, code)
		assert.Equal(t, "rate limit exceeded", reason)
		c.Finish(1008)
		harness.Receive(t, ends, "no disconnect") // comes after the last handler
		assert.Len(t, noted, 2)
		assert.EqualValues(t, 4, s.Stats().RateLimited)

		other.Send(requests(1, 2)...)
		expectAnswers(other, 2, 2)
		e := harness.Receive(t, failures, "no EventError")
		assert.Equal(t, sc.ID, e.ClientID)
		assert.ErrorContains(t, e.Data.(error), "rate limit")
		assert.Empty(t, failures)
	})
}

// A client that pauses is served again.
func TestRateLimitPause(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		limit := ws.RateLimit{Messages: 20, MessageBurst: 1, Tolerance: 1 << 30}
		s := harness.Start(t, mode, ws.WithRateLimit(limit))
		registerNote(t, s.Manager)
		c := s.Dial(w)
		c.Send(requests(1, 100)...)
		for range 100 {
			c.ReadEnvelope()
		}
		assert.Positive(t, s.Stats().RateLimited)
		for range 2 {
			harness.Eventually(t, func() bool {
				c.Send(requests(1, 1)...)
				return c.ReadEnvelope().Code == 200
			}, "not served again")
		}
	})
}

// A client that has sent nothing may send a message larger than the burst, but
// then nothing for long.
func TestRateLimitTakesOneOfAnySize(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithRateLimit(ws.RateLimit{Bytes: never, ByteBurst: 1}))
		registerNote(t, s.Manager)
		c := s.Dial(w)
		c.Send(harness.Request("note", "big", `"`+strings.Repeat("x", 300_000)+`"`))
		c.ExpectReply("big", 200, "")
		c.Send(requests(1, 1)...)
		c.ExpectReply("1", 429, "too many requests")
	})
}

// Raw messages over the limit are dropped without an answer.
func TestRateLimitRaw(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithRateLimit(ws.RateLimit{Bytes: never, ByteBurst: 10, Tolerance: 3}))
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		c.Send("12345678", "abc", "90", "d", "", "e")
		c.Expect("12345678", "90", "")
		c.Sync()
		assert.EqualValues(t, 3, s.Stats().RateLimited)
		c.Send("f")
		f := c.Next()
		require.Equal(t, gws.OpClose, f.Header.OpCode, "payload %q", f.Payload)
		c.Finish(1008)
		assert.EqualValues(t, 4, s.Stats().RateLimited)
	})
}

// Control frames, and the fragments of a message, do not count as messages.
func TestRateLimitCountsDataMessages(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithRateLimit(ws.RateLimit{Messages: never, MessageBurst: 1}))
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		for range 20 {
			c.Sync()
		}
		c.WriteRaw(harness.Fragment(gws.OpText, false, "a") + harness.Fragment(gws.OpContinuation, false, "b") + harness.Fragment(gws.OpContinuation, true, "c"))
		c.Expect("abc")
		assert.Zero(t, s.Stats().RateLimited)
	})
}

// The limit comes before a route's own mode is looked at.
func TestRateLimitWithModeOverrides(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithRateLimit(ws.RateLimit{Messages: never, MessageBurst: 4}))
		harness.RegisterGreetings(t, s.Manager)
		answer := func(*ws.Client) (*int, error) { return nil, nil }
		require.NoError(t, ws.HandleOnly(s.Manager, "inline", answer, ws.RunInline()))
		require.NoError(t, ws.HandleOnly(s.Manager, "pooled", answer, ws.RunPooled()))
		c := s.Dial(w)
		for i, event := range []string{"inline", "pooled", "inline", "pooled", "inline", "pooled"} {
			c.Send(harness.Request(event, "1", ""))
			if i < 4 {
				c.ExpectReply("1", 200, "")
			} else {
				c.ExpectReply("1", 429, "")
			}
		}
	})
}
