package ws_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
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
		{"longest request_id", request("typed", longest, ""), 200, longest, "success"},
		{"request_id too long", request("typed", tooLong, ""), 400, "", tooLongText},
		{"huge request_id", request("typed", strings.Repeat(`\u0001`, huge/6), ""), 400, "", tooLongText},
		{"no request", `{"type":"x","request_id":"` + tooLong + `"}`, 400, "", tooLongText},
		{"nested too deep", request("typed", "id", strings.Repeat("[", 128)+strings.Repeat("]", 128)), 400, "id", "invalid message: values nest deeper than 128, at byte "},
		{"huge event", request(strings.Repeat("e", huge), "id", ""), 404, "id", "handler not found"},
		{"huge type", `{"type":"` + strings.Repeat("t", huge) + `","request_id":"id"}`, 400, "id", "invalid message type "},
		{"huge number", request("typed", "id", `{"N":`+strings.Repeat("1", huge)+`}`), 400, "id", ""},
		{"huge time", request("typed", "id", `{"T":"`+strings.Repeat("\xc3\xa9", huge/2)+`"}`), 400, "id", ""},
	}
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		require.NoError(t, ws.Handle0(s.Manager, "typed", func(*ws.Client, *numbers) error { return nil }))
		c := s.dial(w)
		for _, tt := range tests {
			c.send(tt.message)
			f := c.read()
			require.Equal(t, gws.OpText, f.Header.OpCode, tt.name)
			assert.Less(t, len(f.Payload), 2000, tt.name)
			var e envelope
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
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, ws.WithRateLimit(ws.RateLimit{Messages: math.SmallestNonzeroFloat64, MessageBurst: 1}))
		c := s.dial(w)
		c.send(request("none", "1", ""), request("none", strings.Repeat("i", 256), ""), request("none", strings.Repeat("i", 257), ""))
		answers := map[int][]string{}
		for range 3 {
			e := c.readEnvelope()
			answers[e.Code] = append(answers[e.Code], e.RequestID)
		}
		assert.Equal(t, []string{"1"}, answers[404])
		assert.Equal(t, []string{strings.Repeat("i", 256), ""}, answers[429])
	})
}

// A client that does not read the answers to requests that fail waits with its requests:
// they count against its queue, whoever answers.
func TestUnreadErrorsAreBounded(t *testing.T) {
	const queueBytes, requests = 64 << 10, 8000
	id := strings.Repeat(`\u0001`, 256) // as long in the answer
	never := ws.RateLimit{Messages: math.SmallestNonzeroFloat64, MessageBurst: 1, Tolerance: 1 << 20}
	tests := map[string]struct {
		message string
		code    int
		opts    []ws.Option
	}{
		"404": {request("none", id, ""), 404, nil},
		"400": {request("typed", id, `{"N":`+strings.Repeat("1", 1000)+`}`), 400, nil},
		"429": {request("typed", id, ""), 429, []ws.Option{ws.WithRateLimit(never)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			onEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *flowServer) {
				s := start(append(tt.opts, func(c *ws.Config) { c.QueueBytes = queueBytes })...)
				require.NoError(t, ws.Handle0(s.Manager, "typed", func(*ws.Client, *struct{ N int }) error { return nil }))
				c := s.connect()
				c.send(request("typed", "first", ""))
				c.expectReply("first", 200, "")
				burst := strings.Repeat(frame(gws.OpText, tt.message), requests)
				wait := c.writeInBackground(burst)
				eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
				most, samples := 0, 0
				eventually(t, func() bool { // polls every millisecond
					s.RangeClients(func(sc *ws.Client) bool { most = max(most, sc.QueuedBytes()); return true })
					samples++
					return samples == 20
				}, "no samples")
				assert.LessOrEqual(t, most, queueBytes+64<<10+2*2000)
				for range requests {
					require.Equal(t, tt.code, c.readEnvelope().Code)
				}
				wait()
			})
		})
	}
}
