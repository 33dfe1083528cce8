package ws_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestHandleJoinAnswersPing(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
			s := startHistory(t, ws.History{}, ws.WithHandlerMode(mode))
			c := s.Dial(w)
			for _, data := range []string{``, `null`, `{}`, `7`, `"text"`} {
				c.Send(harness.Request("ws.ping", "p", data))
				assert.Empty(t, c.ExpectReply("p", 200, "success"))
			}
			c.Send(`{"type":"notify","event":"ws.ping"}`, harness.Request("ws.ping", "last", ""))
			c.ExpectReply("last", 200, "success") // and no answer to the notification
			assert.Empty(t, ws.Describe(s.Manager).Handlers)
		}
	})
	m := harness.Start(t).Manager
	require.NoError(t, ws.HandleOnly(m, "ws.ping", func(*ws.Client) (*int, error) { return nil, nil }))
	require.ErrorIs(t, ws.HandleJoin(m, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }),
		ws.ErrHandlerExists)
}
