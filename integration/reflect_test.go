package integration_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// An answer repeats a request_id of 256 bytes at most, and nothing else of a length that
// the client chooses.
func TestAnswersRepeatLittle(t *testing.T) {
	const huge = 400_000
	longest, tooLong := strings.Repeat("i", 256), strings.Repeat("i", 257)
	const tooLongText = "invalid message: request_id longer than 256 bytes, at byte "
	type numbers struct {
		N int
		T time.Time
	}
	tests := []struct {
		name    string
		message string
		code    int
		id      string
		text    string
	}{
		{"longest request_id", harness.Request("typed", longest, ""), 200, longest, "success"},
		{"request_id too long", harness.Request("typed", tooLong, ""), 400, "", tooLongText},
		{"huge request_id", harness.Request("typed", strings.Repeat(`\u0001`, huge/6), ""), 400, "", tooLongText},
		{"no request", `{"type":"x","request_id":"` + tooLong + `"}`, 400, "", tooLongText},
		{
			"nested too deep", harness.Request("typed", "id", strings.Repeat("[", 128)+strings.Repeat("]", 128)),
			400, "id", "invalid message: values nest deeper than 128, at byte ",
		},
		{"huge event", harness.Request(strings.Repeat("e", huge), "id", ""), 404, "id", "handler not found"},
		{"huge type", `{"type":"` + strings.Repeat("t", huge) + `","request_id":"id"}`, 400, "id", "invalid message type "},
		{"huge number", harness.Request("typed", "id", `{"N":`+strings.Repeat("1", huge)+`}`), 400, "id", ""},
		{"huge time", harness.Request("typed", "id", `{"T":"`+strings.Repeat("\xc3\xa9", huge/2)+`"}`), 400, "id", ""},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		require.NoError(t, ws.Handle0(s.Manager, "typed", func(*ws.Client, *numbers) error { return nil }))
		c := s.Dial(w)
		for _, tt := range tests {
			c.Send(tt.message)
			f := c.Next()
			require.Equal(t, gobwas.OpText, f.Header.OpCode, tt.name)
			assert.Less(t, len(f.Payload), 2000, tt.name)
			var e harness.Envelope
			require.NoError(t, json.Unmarshal(f.Payload, &e), tt.name)
			assert.Equal(t, tt.code, e.Code, tt.name)
			assert.Equal(t, tt.id, e.RequestID, tt.name)
			if tt.text != "" {
				assert.Truef(t, strings.HasPrefix(e.Message, tt.text), "%s: %q", tt.name, e.Message)
			}
		}
	})
}

// A message over the rate limit whose request_id is too long is answered without it.
func TestRateLimitRepeatsLittle(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithRateLimit(ws.RateLimit{Messages: math.SmallestNonzeroFloat64, MessageBurst: 1}))
		c := s.Dial(w)
		c.Send(harness.Request("none", "1", ""), harness.Request("none", strings.Repeat("i", 256), ""),
			harness.Request("none", strings.Repeat("i", 257), ""))
		answers := map[int][]string{}
		for range 3 {
			e := c.ReadEnvelope()
			answers[e.Code] = append(answers[e.Code], e.RequestID)
		}
		assert.Equal(t, []string{"1"}, answers[404])
		assert.Equal(t, []string{strings.Repeat("i", 256), ""}, answers[429])
	})
}

// A client that does not read the answers to requests that fail waits with its requests:
// they count against its queue, whoever answers.
func TestUnreadErrorsAreBounded(t *testing.T) {
	const queueBytes, requests = 64 << 10, 2000 // some 150 of them pause the client
	id := strings.Repeat(`\u0001`, 256)         // as long in the answer
	never := ws.RateLimit{Messages: math.SmallestNonzeroFloat64, MessageBurst: 1, Tolerance: 1 << 20}
	tests := map[string]struct {
		message string
		code    int
		opts    []ws.Option
	}{
		"404": {harness.Request("none", id, ""), 404, nil},
		"400": {harness.Request("typed", id, `{"N":`+strings.Repeat("1", 1000)+`}`), 400, nil},
		"429": {harness.Request("typed", id, ""), 429, []ws.Option{ws.WithRateLimit(never)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
				s := start(append(tt.opts, func(c *ws.Config) { c.QueueBytes = queueBytes })...)
				require.NoError(t, ws.Handle0(s.Manager, "typed", func(*ws.Client, *struct{ N int }) error { return nil }))
				c := s.Connect()
				c.Send(harness.Request("typed", "first", ""))
				c.ExpectReply("first", 200, "")
				burst := strings.Repeat(harness.Frame(gobwas.OpText, tt.message), requests)
				wait := c.WriteInBackground(burst)
				harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
				most, samples := 0, 0
				harness.Eventually(t, func() bool { // polls every millisecond
					s.RangeClients(func(sc *ws.Client) bool { most = max(most, sc.QueuedBytes()); return true })
					samples++
					return samples == 20
				}, "no samples")
				assert.LessOrEqual(t, most, queueBytes+64<<10+2*2000)
				for range requests {
					require.Equal(t, tt.code, c.ReadEnvelope().Code)
				}
				wait()
			})
		})
	}
}
