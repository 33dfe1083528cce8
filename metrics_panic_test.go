package ws_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
)

// panickingMetrics is an application's bug in every method.
type panickingMetrics struct{}

func (panickingMetrics) IncrementConnections()              { panic("metrics") }
func (panickingMetrics) DecrementConnections()              { panic("metrics") }
func (panickingMetrics) SetConnectionCount(int)             { panic("metrics") }
func (panickingMetrics) IncrementMessageCount(string)       { panic("metrics") }
func (panickingMetrics) RecordMessageLatency(string, int64) { panic("metrics") }
func (panickingMetrics) IncrementMessageErrors(string)      { panic("metrics") }
func (panickingMetrics) SetRoomCount(int)                   { panic("metrics") }
func (panickingMetrics) SetRoomMemberCount(string, int)     { panic("metrics") }
func (panickingMetrics) RecordBroadcastLatency(int64)       { panic("metrics") }
func (panickingMetrics) IncrementDroppedMessages()          { panic("metrics") }
func (panickingMetrics) IncrementReadErrors()               { panic("metrics") }
func (panickingMetrics) IncrementWriteErrors()              { panic("metrics") }
func (panickingMetrics) IncrementInvalidMessages()          { panic("metrics") }

// A panic in Metrics costs a line in the log: messages are handled, and who
// breaks the protocol or hangs up leaves nothing behind.
func TestMetricsThatPanicHarmNobody(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, ws.WithMetrics(panickingMetrics{}))
		registerGreetings(t, s.Manager)
		witness, sw := s.dialClient(w)
		assert.NoError(t, sw.JoinRoom("r"))
		for range 4 {
			c, sc := s.dialClient(w)
			assert.NoError(t, sc.JoinRoom("r"))
			assert.NoError(t, s.BroadcastToRoom("r", []byte("hello"), nil))
			c.expect("hello")
			witness.expect("hello")
			c.raw("\x81\x01x") // not masked
			c.expectClose(1002)
			_ = c.Close()
			c, _ = s.dialClient(w)
			c.abort()
		}
		witness.send(request("only", "1", ""))
		witness.expectReply("1", 200, "")
		eventually(t, func() bool { return s.GetClientCount() == 1 && len(s.GetRoomMembers("r")) == 1 },
			"%d clients, %d members", s.GetClientCount(), len(s.GetRoomMembers("r")))
	})
}
