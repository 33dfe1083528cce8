package ws_test

import (
	"testing"

	"github.com/qi-realtime/ws"
)

// BenchmarkRoute handles one message as a loop or a worker does: parse the
// envelope, find the handler, run it. The typed handler also decodes its
// request and encodes its response, which a client that is not connected then
// refuses.
func BenchmarkRoute(b *testing.B) {
	m, err := ws.NewManager()
	if err != nil {
		b.Fatal(err)
	}
	type say struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	if err := m.Register("plain", func(*ws.Client, *ws.Message) error { return nil }); err != nil {
		b.Fatal(err)
	}
	if err := ws.Handle(m, "typed", func(_ *ws.Client, req *say) (*say, error) { return req, nil }); err != nil {
		b.Fatal(err)
	}
	c := ws.NewTestClient(m)
	for _, event := range []string{"plain", "typed"} {
		b.Run("handler="+event, func(b *testing.B) {
			msg := []byte(`{"type":"request","event":"` + event +
				`","request_id":"req_1","data":{"room":"lobby","text":"hello, everybody"},"timestamp":1707552000}`)
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				ws.HandleMessage(c, msg)
			}
		})
	}
}

// BenchmarkPrepare encodes a broadcast.
func BenchmarkPrepare(b *testing.B) {
	payload := make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		ws.Prepare(ws.OpText, payload)
	}
}
