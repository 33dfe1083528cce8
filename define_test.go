package ws_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

type defined struct{ Text string }

func TestDefineEvent(t *testing.T) {
	m := harness.NewManager(t)
	e := ws.DefineEvent[defined](m, "chat.message")
	assert.Equal(t, "chat.message", e.Name())
	assert.Equal(t, e, ws.DefineEvent[defined](m, "chat.message"), "again")
	m.Router.Freeze()
	assert.NotPanics(t, func() { ws.DefineEvent[int](m, "chat.count") }, "after Freeze")

	assert.PanicsWithValue(t, "ws: DefineEvent: empty name", func() { ws.DefineEvent[defined](m, "") })
	assert.PanicsWithValue(t, `ws: DefineEvent("ws.gap"): names with the prefix "ws." belong to the library`,
		func() { ws.DefineEvent[defined](m, "ws.gap") })
	assert.PanicsWithValue(t, `ws: DefineEvent("chat.message"): it has data of type ws_test.defined, not *ws_test.defined`,
		func() { ws.DefineEvent[*defined](m, "chat.message") })
	assert.NotPanics(t, func() { ws.DefineEvent[defined](m, "wsx") }, "another prefix")
	assert.Len(t, ws.Describe(m).Events, 3, "a definition that panics adds nothing")
}

func TestDefineError(t *testing.T) {
	m := harness.NewManager(t)
	k := ws.DefineError(m, 4290, "tooFast")
	assert.Equal(t, 4290, k.Code())
	assert.Equal(t, "tooFast", k.Name())
	assert.Equal(t, ws.NewClientError(4290, "wait"), k.New("wait"))
	assert.Equal(t, k, ws.DefineError(m, 4290, "tooFast"), "again")

	for _, tt := range []struct {
		code       int
		name, want string
	}{
		{1, "", "ws: DefineError: empty name"},
		{1, "ws.x", `ws: DefineError("ws.x"): names with the prefix "ws." belong to the library`},
		{0, "zero", `ws: DefineError("zero"): code 0 is not positive`},
		{-4, "less", `ws: DefineError("less"): code -4 is not positive`},
		{4291, "tooFast", `ws: DefineError("tooFast"): it has code 4290, not 4291`},
		{4290, "tooSlow", `ws: DefineError("tooSlow"): code 4290 belongs to "tooFast"`},
	} {
		assert.PanicsWithValue(t, tt.want, func() { ws.DefineError(m, tt.code, tt.name) })
	}
	assert.Equal(t, []ws.ErrorInfo{{Name: "tooFast", Code: 4290}}, ws.Describe(m).Errors)
}

// A handler's error of a defined kind reaches the client.
func TestErrorKindIsAnswered(t *testing.T) {
	s := harness.Start(t)
	k := ws.DefineError(s.Manager, 4290, "tooFast")
	require.NoError(t, ws.Handle0(s.Manager, "say", func(*ws.Client, *defined) error { return k.New("wait a second") }))
	c := s.Dial(harness.Native)
	c.Send(harness.Request("say", "1", `{}`))
	c.ExpectReply("1", 4290, "wait a second")
}

// Definitions and Describe may run at the same time.
func TestDefineConcurrently(t *testing.T) {
	m := harness.NewManager(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				ws.DefineEvent[defined](m, fmt.Sprintf("event.%d", n))
				ws.DefineError(m, 4000+50*i+n, fmt.Sprintf("error.%d.%d", i, n))
				ws.Describe(m)
			}
		})
	}
	wg.Wait()
	s := ws.Describe(m)
	assert.Len(t, s.Events, 50)
	assert.Len(t, s.Errors, 400)
}
