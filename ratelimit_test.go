package ws_test

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"

	"github.com/qi-realtime/ws/internal/harness"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// arrival is a number of messages that come at the same time.
type arrival struct {
	at       time.Duration
	messages int
	bytes    int // of each
	admitted int // the first of them
}

func TestLimiterAdmits(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name     string
		limit    ws.RateLimit
		arrivals []arrival
	}{
		{"burst, then the rate", ws.RateLimit{Messages: 10, MessageBurst: 3}, []arrival{
			{0, 5, 1, 3},
			{99 * ms, 1, 1, 0},
			{100 * ms, 2, 1, 1},
			{199*ms + 999_999, 1, 1, 0},
			{200 * ms, 1, 1, 1},
			{399 * ms, 2, 1, 1},
			{400 * ms, 2, 1, 1},
		}},
		{"no more than the burst is saved", ws.RateLimit{Messages: 10, MessageBurst: 3}, []arrival{
			{time.Hour, 5, 1, 3}, {1000 * time.Hour, 5, 1, 3},
		}},
		{"a refused message costs nothing", ws.RateLimit{Messages: 1, MessageBurst: 1}, []arrival{
			{0, 1, 1, 1}, {time.Second - 1, 1000, 1, 0}, {time.Second, 1, 1, 1},
		}},
		{"exactly at the rate", ws.RateLimit{Messages: 1000, MessageBurst: 1}, []arrival{
			{1 * ms, 1, 1, 1}, {2 * ms, 1, 1, 1}, {3 * ms, 1, 1, 1}, {4 * ms, 1, 1, 1}, {5*ms - 1, 1, 1, 0}, {5 * ms, 1, 1, 1},
		}},
		{"default burst: one second's worth", ws.RateLimit{Messages: 4}, []arrival{{0, 9, 1, 4}, {time.Minute, 9, 1, 4}}},
		{"default burst: at least one message", ws.RateLimit{Messages: 0.25}, []arrival{
			{0, 2, 1, 1}, {3999 * ms, 1, 1, 0}, {4000 * ms, 2, 1, 1},
		}},
		{"fractions", ws.RateLimit{Messages: 2.5}, []arrival{
			{0, 9, 1, 2}, {200 * ms, 9, 1, 1}, {599 * ms, 1, 1, 0}, {600 * ms, 1, 1, 1},
		}},
		{"bytes", ws.RateLimit{Bytes: 1000, ByteBurst: 500}, []arrival{
			{0, 9, 100, 5}, {100*ms - 1, 1, 100, 0}, {100 * ms, 2, 100, 1}, {1100 * ms, 1, 500, 1},
		}},
		{"default byte burst", ws.RateLimit{Bytes: 1000}, []arrival{{0, 9, 250, 4}}},
		{
			"empty messages have no bytes",
			ws.RateLimit{Bytes: 1, ByteBurst: 1},
			[]arrival{{0, 9, 0, 9}, {0, 2, 1, 1}, {0, 9, 0, 9}},
		},
		{"larger than the burst: a full bucket only", ws.RateLimit{Bytes: 1000, ByteBurst: 500}, []arrival{
			{0, 1, 1, 1}, {1*ms - 1, 1, 501, 0}, {1 * ms, 1, 501, 1},
		}},
		{"debt is paid", ws.RateLimit{Bytes: 1000, ByteBurst: 500}, []arrival{
			{0, 1, 10_000, 1},
			{0, 1, 0, 0},
			{9499 * ms, 1, 0, 0},
			{9500 * ms, 1, 0, 1},
			{9999 * ms, 2, 499, 1},
			{10_499 * ms, 1, 10_000, 1},
		}},
		{
			"messages refuse, bytes are not charged",
			ws.RateLimit{Messages: 1, MessageBurst: 1, Bytes: 1, ByteBurst: 100},
			[]arrival{
				{0, 3, 10, 1}, {time.Second, 1, 91, 1},
			},
		},
		{
			"bytes refuse, messages are not charged",
			ws.RateLimit{Messages: 1, MessageBurst: 3, Bytes: 1, ByteBurst: 100},
			[]arrival{
				{0, 1, 100, 1}, {0, 5, 1, 0}, {0, 9, 0, 2},
			},
		},
		{
			"the clock does not move",
			ws.RateLimit{Messages: 1e9, MessageBurst: 2},
			[]arrival{{5, 9, 1, 2}, {5, 9, 1, 0}, {6, 9, 1, 1}},
		},
		{"the clock goes back", ws.RateLimit{Messages: 1, MessageBurst: 2}, []arrival{
			{10 * time.Second, 9, 1, 2}, {0, 9, 1, 0}, {9 * time.Second, 9, 1, 0}, {11 * time.Second, 9, 1, 1},
		}},
		{
			"a clock below zero",
			ws.RateLimit{Messages: 1, MessageBurst: 2},
			[]arrival{{-time.Hour, 9, 1, 2}, {time.Second, 9, 1, 1}},
		},
		{"the fastest rate", ws.RateLimit{Messages: math.MaxFloat64, MessageBurst: 2}, []arrival{{0, 9, 1, 2}, {1, 9, 1, 2}}},
		{"the slowest rate", ws.RateLimit{Messages: math.SmallestNonzeroFloat64, MessageBurst: 2}, []arrival{
			{0, 9, 1, 2}, {math.MaxInt64, 9, 1, 0},
		}},
		{"the largest burst", ws.RateLimit{Bytes: 1, ByteBurst: math.MaxInt64}, []arrival{{0, 9, math.MaxInt32, 9}}},
		{
			"a burst without its rate",
			ws.RateLimit{Messages: 1, ByteBurst: 1},
			[]arrival{{0, 9, 1000, 1}, {time.Second, 9, 1000, 1}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := ws.NewLimiter(tt.limit)
			for _, a := range tt.arrivals {
				for i := range a.messages {
					assert.Equal(t, i < a.admitted, l.Admit(a.at, a.bytes), "at %v, message %d of %d bytes", a.at, i+1, a.bytes)
				}
			}
		})
	}
}

// In the long run a client gets its rate, however it sends.
func TestLimiterRate(t *testing.T) {
	for _, every := range []time.Duration{time.Nanosecond * 977, 10 * time.Microsecond, 3 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			l := ws.NewLimiter(ws.RateLimit{Messages: 7})
			const steps = 1_000_000
			admitted := 0
			for i := range steps {
				if l.Admit(time.Duration(i)*every, 1) {
					admitted++
				}
			}
			assert.InDelta(t, 7+7*(steps*every).Seconds(), admitted, 1)
		})
	}
}

// A client that is a little over its limit for long has the excess refused, and is not closed. One
// that floods is closed.
func TestLimiterToleranceDecays(t *testing.T) {
	messages := ws.RateLimit{Messages: 10, MessageBurst: 20}
	bytes := ws.RateLimit{Bytes: 10_000, ByteBurst: 20_000}
	fine := ws.RateLimit{Messages: 1000, MessageBurst: 1, Tolerance: 1}
	tests := []struct {
		name   string
		limit  ws.RateLimit
		rate   float64 // of the client, in messages for each second
		bytes  int     // of each
		random bool    // the messages come at random times (Poisson)
		over   time.Duration
		closed bool
	}{
		{"at the limit", messages, 10, 1, false, time.Hour, false},
		{"1 % over", messages, 10.1, 1, false, time.Hour, false},
		{"1 % over, at random", messages, 10.1, 1, true, time.Hour, false},
		{"50 % over", messages, 15, 1, false, time.Hour, false},
		{"1 % over in bytes", bytes, 10.1, 1000, false, time.Hour, false},
		{"1 % over in bytes, at random", bytes, 101, 100, true, time.Hour, false},
		{"1 % over, the least tolerance", fine, 1010, 1, false, time.Hour, false},
		{"10 times", messages, 100, 1, false, time.Minute, true},
		{"10 times, at random", messages, 100, 1, true, time.Minute, true},
		{"10 times in bytes", bytes, 100, 1000, false, time.Minute, true},
		{"4 times", messages, 40, 1, false, time.Minute, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := ws.NewLimiter(tt.limit)
			random := rand.New(rand.NewPCG(1, 2))
			var now time.Duration
			admitted, refused := 0, 0
			for now < tt.over && !l.Exhausted() {
				if l.Admit(now, tt.bytes) {
					admitted++
				} else {
					refused++
				}
				gap := 1 / tt.rate
				if tt.random {
					gap *= random.ExpFloat64()
				}
				now += time.Duration(gap * float64(time.Second))
			}
			require.Equal(t, tt.closed, l.Exhausted(), "after %v, with %d admitted and %d refused", now, admitted, refused)
			if tt.rate > 10 && !tt.closed && tt.bytes < 1000 {
				assert.NotZero(t, refused)
			}
			if tt.closed { // the burst of 20 comes first
				assert.Less(t, now, 3*time.Second)
				assert.LessOrEqual(t, refused, 11+admitted)
			}
		})
	}
}

// A client is closed when its refused messages exceed the number that its limit has admitted since.
func TestLimiterTolerance(t *testing.T) {
	l := ws.NewLimiter(ws.RateLimit{Messages: 1, MessageBurst: 2, Bytes: 1000, ByteBurst: 10_000, Tolerance: 3})
	refuse := func(at time.Duration, n int) {
		t.Helper()
		for range n {
			require.False(t, l.Admit(at, 1))
		}
	}
	admit := func(at time.Duration, n int) {
		t.Helper()
		for range n {
			require.True(t, l.Admit(at, 1))
			require.False(t, l.Exhausted())
		}
	}
	admit(0, 2)
	refuse(0, 3)
	assert.False(t, l.Exhausted())
	admit(2*time.Second, 2) // full again
	refuse(2*time.Second, 2)
	admit(3*time.Second, 1) // not full, but one is forgiven
	refuse(3*time.Second, 2)
	assert.False(t, l.Exhausted())
	refuse(3*time.Second, 1)
	assert.True(t, l.Exhausted())

	require.True(t, l.Admit(5*time.Second, 4000)) // full; the bytes are so at 9 s
	assert.False(t, l.Exhausted())
	admit(5*time.Second, 1)
	refuse(5*time.Second, 3)
	admit(8*time.Second, 2) // one bucket of the two is full; three are forgiven
	refuse(8*time.Second, 3)
	assert.False(t, l.Exhausted())
	refuse(8*time.Second, 1)
	assert.True(t, l.Exhausted())
}

// Refused messages are forgiven by their size: empty messages in between, which cost nothing, make
// up for none.
func TestLimiterToleranceBySize(t *testing.T) {
	l := ws.NewLimiter(ws.RateLimit{Bytes: 1000, ByteBurst: 1000, Tolerance: 3})
	require.True(t, l.Admit(0, 1000))
	for range 3 {
		require.False(t, l.Admit(0, 500))
		require.True(t, l.Admit(0, 0))
		require.False(t, l.Exhausted())
	}
	require.False(t, l.Admit(499*time.Millisecond, 500))
	require.True(t, l.Exhausted())

	l = ws.NewLimiter(ws.RateLimit{Bytes: 1000, ByteBurst: 1000, Tolerance: math.MaxInt})
	require.True(t, l.Admit(0, 1000))
	for range 1 << 24 {
		l.Admit(0, 1)
	}
	require.True(t, l.Exhausted())
}

func TestLimiterDefaults(t *testing.T) {
	assert.Nil(t, ws.NewLimiter(ws.RateLimit{}))
	assert.Nil(t, ws.NewLimiter(ws.RateLimit{MessageBurst: 1, ByteBurst: 1, Tolerance: 1}), "no rate")
	l := ws.NewLimiter(ws.RateLimit{Messages: 1})
	require.True(t, l.Admit(0, 1))
	for range 10 {
		require.False(t, l.Admit(0, 1))
		require.False(t, l.Exhausted())
	}
	require.False(t, l.Admit(0, 1))
	assert.True(t, l.Exhausted())
}

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

// Messages over the limit are refused, in either measure; messages within it are handled in order.
// Each client has a limit of its own.
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
			c.WriteRaw(harness.Frame(gobwas.OpBinary, "\x00"))
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
		require.Equal(t, gobwas.OpClose, f.Header.OpCode, "payload %q", f.Payload)
		code, reason := gobwas.ParseCloseFrameData(f.Payload)
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
		require.Equal(t, gobwas.OpClose, f.Header.OpCode, "payload %q", f.Payload)
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
		c.WriteRaw(harness.Fragment(gobwas.OpText, false, "a") + harness.Fragment(gobwas.OpContinuation, false, "b") +
			harness.Fragment(gobwas.OpContinuation, true, "c"))
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
