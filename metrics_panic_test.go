package ws_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
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
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithMetrics(panickingMetrics{}))
		harness.RegisterGreetings(t, s.Manager)
		witness, sw := s.DialClient(w)
		assert.NoError(t, sw.JoinRoom("r"))
		for range 4 {
			c, sc := s.DialClient(w)
			assert.NoError(t, sc.JoinRoom("r"))
			assert.NoError(t, s.BroadcastToRoom("r", []byte("hello"), nil))
			c.Expect("hello")
			witness.Expect("hello")
			c.WriteRaw("\x81\x01x") // not masked
			c.ExpectClose(1002)
			_ = c.Close()
			c, _ = s.DialClient(w)
			c.Abort()
		}
		witness.Send(harness.Request("only", "1", ""))
		witness.ExpectReply("1", 200, "")
		harness.Eventually(t, func() bool { return s.GetClientCount() == 1 && len(s.GetRoomMembers("r")) == 1 },
			"%d clients, %d members", s.GetClientCount(), len(s.GetRoomMembers("r")))
	})
}
