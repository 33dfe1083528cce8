package otel_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/otel"
	"github.com/qi-realtime/ws/wstest"
)

type order struct {
	Fail string `json:"fail"`
}

// server is a manager with spans, and the recorder of its spans.
type server struct {
	*wstest.Server
	tracing *otel.Tracing
	spans   *tracetest.SpanRecorder
	seen    chan trace.SpanContext // of the handler's context
}

func start(t *testing.T, mode ws.HandlerMode, opts ...otel.Option) *server {
	t.Helper()
	s := &server{spans: tracetest.NewSpanRecorder(), seen: make(chan trace.SpanContext, 1)}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
	s.tracing = otel.New(append([]otel.Option{otel.Provider(provider)}, opts...)...)
	m, err := ws.NewManager(ws.WithHandlerMode(mode))
	require.NoError(t, err)
	require.NoError(t, s.tracing.Use(m))
	require.NoError(t, ws.Handle(m, "order.place", s.place))
	s.Server = wstest.Start(t, m)
	return s
}

func (s *server) place(c *ws.Client, req *order) (*order, error) {
	ctx := s.tracing.Context(c)
	s.seen <- trace.SpanContextFromContext(ctx)
	switch req.Fail {
	case "client":
		return nil, &ws.ClientError{Code: 422, Message: "no such article"}
	case "server":
		return nil, errors.New("database is gone")
	case "panic":
		panic("bug")
	}
	return req, ctx.Err()
}

// ended waits for n spans.
func (s *server) ended(t *testing.T, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.spans.Ended()) >= n }, time.Minute, time.Millisecond)
	require.Len(t, s.spans.Ended(), n)
	return s.spans.Ended()
}

func onBothModes(t *testing.T, test func(*testing.T, ws.HandlerMode)) {
	t.Helper()
	for name, mode := range map[string]ws.HandlerMode{"pooled": ws.Pooled, "inline": ws.Inline} {
		t.Run(name, func(t *testing.T) { test(t, mode) })
	}
}

func TestSpans(t *testing.T) {
	tests := []struct {
		fail   string
		code   int
		status codes.Code
	}{
		{"", 200, codes.Unset},
		{"client", 422, codes.Unset},
		{"server", 500, codes.Error},
		{"panic", 500, codes.Error},
	}
	onBothModes(t, func(t *testing.T, mode ws.HandlerMode) {
		s := start(t, mode, otel.Ratio(1))
		c := s.Dial(nil)
		for i, tt := range tests {
			answer := c.Request("order.place", order{Fail: tt.fail})
			require.Equal(t, tt.code, answer.Code)
			span := s.ended(t, i+1)[i]
			assert.Equal(t, "order.place", span.Name())
			assert.Equal(t, trace.SpanKindServer, span.SpanKind())
			assert.Equal(t, tt.status, span.Status().Code, tt.fail)
			assert.Equal(t, span.SpanContext().TraceID().String(), answer.TraceID)
			assert.Equal(t, span.SpanContext(), <-s.seen, "the handler's context")
			assert.False(t, span.Parent().IsValid())
		}
	})
}

func TestSpanOfRawMessage(t *testing.T) {
	m, err := ws.NewManager()
	require.NoError(t, err)
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	require.NoError(t, otel.New(otel.Provider(provider), otel.Ratio(1)).Use(m))
	m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	c := wstest.Start(t, m).Dial(nil)
	c.Send("hello")
	assert.Equal(t, "hello", c.Next())
	require.Eventually(t, func() bool { return len(spans.Ended()) == 1 }, time.Minute, time.Millisecond)
	assert.Equal(t, "raw", spans.Ended()[0].Name())
}

// TestParent asserts that the client's traceparent decides only if it may.
func TestParent(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	tests := []struct {
		name, parent    string
		opts            []otel.Option
		sampled, joined bool
	}{
		{"sampled", "00-" + id + "-" + span + "-01", []otel.Option{otel.FollowClients(), otel.Ratio(0)}, true, true},
		{"not sampled", "00-" + id + "-" + span + "-00", []otel.Option{otel.FollowClients(), otel.Ratio(1)}, false, false},
		{"malformed, ratio 1", "00-" + id, []otel.Option{otel.FollowClients(), otel.Ratio(1)}, true, false},
		{"malformed, ratio 0", "00-" + id, []otel.Option{otel.FollowClients(), otel.Ratio(0)}, false, false},
		{"not followed, ratio 0", "00-" + id + "-" + span + "-01", []otel.Option{otel.Ratio(0)}, false, false},
		{"not followed, ratio 1", "00-" + id + "-" + span + "-01", []otel.Option{otel.Ratio(1)}, true, false},
	}
	onBothModes(t, func(t *testing.T, mode ws.HandlerMode) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := start(t, mode, tt.opts...)
				c := s.Dial(nil)
				c.Send(fmt.Sprintf(`{"event":"order.place","request_id":"1","traceparent":%q}`, tt.parent))
				var answer ws.Response
				require.NoError(t, json.Unmarshal([]byte(c.Next()), &answer))
				require.Equal(t, 200, answer.Code)
				seen := <-s.seen
				if !tt.sampled {
					assert.Len(t, answer.TraceID, 16)
					assert.False(t, seen.IsValid())
					assert.Empty(t, s.spans.Started())
					return
				}
				ended := s.ended(t, 1)[0]
				assert.Equal(t, ended.SpanContext().TraceID().String(), answer.TraceID)
				assert.Equal(t, tt.joined, answer.TraceID == id)
				assert.Equal(t, tt.joined, ended.Parent().SpanID().String() == span)
			})
		}
	})
}

// TestRatio asserts that the ratio holds, and that each span that is started is recorded.
func TestRatio(t *testing.T) {
	s := start(t, ws.Inline, otel.Ratio(0.2))
	c := s.Dial(nil)
	const messages = 2000
	for range messages {
		require.Equal(t, 200, c.Request("order.place", order{}).Code)
		<-s.seen
	}
	n := len(s.spans.Started())
	assert.InDelta(t, messages*0.2, n, messages*0.06)
	for _, span := range s.ended(t, n) {
		assert.True(t, span.SpanContext().IsSampled())
	}
}

// TestContextOutsideOfAHandler asserts that a client without a sampled message has its own context.
func TestContextOutsideOfAHandler(t *testing.T) {
	s := start(t, ws.Pooled, otel.Ratio(1))
	clients := make(chan *ws.Client, 1)
	s.Manager.Subscribe(ws.EventClientConnected, func(e ws.Event) { clients <- e.Client })
	c := s.Dial(nil)
	client := <-clients
	require.Equal(t, 200, c.Request("order.place", order{}).Code)
	<-s.seen
	s.ended(t, 1)
	assert.False(t, trace.SpanContextFromContext(s.tracing.Context(client)).IsValid())
	assert.Equal(t, client.Context(), s.tracing.Context(client))
}

// TestUnsampledIsFree asserts that a message that is not sampled allocates nothing.
func TestUnsampledIsFree(t *testing.T) {
	for name, opts := range map[string][]otel.Option{
		"none":                  {otel.Ratio(0)},
		"one in a million":      {otel.Ratio(1e-9)},
		"without a traceparent": {otel.Ratio(1e-9), otel.FollowClients()},
	} {
		tracing := otel.New(opts...)
		msg := &ws.Message{Type: ws.TypeRequest, Event: "order.place"}
		assert.Zero(t, testing.AllocsPerRun(1000, func() { otel.Sampled(tracing, msg) }), name)
	}
}

func BenchmarkUnsampled(b *testing.B) {
	tracing := otel.New(otel.Ratio(1e-9))
	msg := &ws.Message{Type: ws.TypeRequest, Event: "order.place"}
	b.ReportAllocs()
	for b.Loop() {
		otel.Sampled(tracing, msg)
	}
}
