package ws_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestDescribe(t *testing.T) {
	type request struct{ Text string }
	type response struct{ ID int }
	m := harness.NewManager(t)
	assert.Equal(t, ws.Schema{}, ws.Describe(m), "nothing is registered")
	opts := make([]ws.RouteOption, 0, 8)
	opts = append(opts, ws.Doc("says a text"))
	require.NoError(t, ws.Handle(m, "say", func(*ws.Client, *request) (*response, error) { return nil, nil }, opts...))
	require.NoError(t, ws.Handle0(m, "forget", func(*ws.Client, *request) error { return nil }))
	require.NoError(t, ws.HandleOnly(m, "count", func(*ws.Client) (*response, error) { return nil, nil }))
	require.NoError(t, m.Register("untyped", func(*ws.Client, *ws.Message) error { return nil }, opts...))
	require.NoError(t, m.Register("ws.own", func(*ws.Client, *ws.Message) error { return nil }))
	ws.DefineEvent[response](m, "told")
	ws.DefineEvent[[]request](m, "all")
	ws.DefineError(m, 4001, "quiet")
	ws.DefineError(m, 4002, "loud")
	in, out := reflect.TypeFor[request](), reflect.TypeFor[response]()
	assert.Equal(t, ws.Schema{
		Handlers: []ws.HandlerInfo{
			{Event: "count", Response: out},
			{Event: "forget", Request: in},
			{Event: "say", Request: in, Response: out, Doc: "says a text"},
			{Event: "untyped", Doc: "says a text"},
		},
		Events: []ws.EventInfo{{Event: "all", Data: reflect.TypeFor[[]request]()}, {Event: "told", Data: out}},
		Errors: []ws.ErrorInfo{{Name: "loud", Code: 4002}, {Name: "quiet", Code: 4001}},
	}, ws.Describe(m))
}
