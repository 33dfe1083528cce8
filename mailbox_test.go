package ws_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// boundedMailboxes hold 8 messages that blockMessage makes of one-digit ids.
func boundedMailboxes() map[string]ws.Option {
	length := int64(len(harness.BlockMessage(1)))
	return map[string]ws.Option{
		"by count":         ws.WithMailboxSize(8),
		"by bytes":         ws.WithMailboxBytes(8 * length),
		"by bytes, uneven": ws.WithMailboxBytes(9*length - 1),
	}
}

// As many messages as a mailbox holds may wait, and are handled.
func TestMailboxAtItsBound(t *testing.T) {
	for name, bound := range boundedMailboxes() {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, bound)
				entered, release := harness.RegisterBlock(t, s.Manager)
				c, sc := s.DialClient(w)
				c.Send(harness.BlockMessage(0))
				harness.Receive(t, entered, "not called")
				for id := 1; id <= 8; id++ {
					c.Send(harness.BlockMessage(id))
				}
				c.Sync()
				assert.False(t, sc.IsClosed())
				release()
				for id := range 9 {
					c.ExpectReply(strconv.Itoa(id), 200, "")
				}
			})
		})
	}
}

// A client whose messages are more than its mailbox holds waits: its connection is
// paused, everything is handled in order, and the others do not notice.
func TestMailboxBeyondItsBound(t *testing.T) {
	const messages = 2000 // some do not fit into one read
	for name, bound := range boundedMailboxes() {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, bound, ws.WithLoops(1))
				harness.RegisterGreetings(t, s.Manager)
				entered, release := harness.RegisterBlock(t, s.Manager)
				bystander := s.Dial(w)
				c, sc := s.DialClient(w)
				var burst []string
				for id := range messages {
					burst = append(burst, harness.BlockMessage(id))
				}
				c.Send(burst...)
				harness.Receive(t, entered, "not called")
				harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
				bystander.Send(harness.Request("only", "1", ""))
				bystander.ExpectReply("1", 200, "")
				assert.False(t, sc.IsClosed())
				release()
				for id := range messages {
					c.ExpectReply(strconv.Itoa(id), 200, "")
				}
				harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
			})
		})
	}
}

// A mailbox that is empty takes one message of any size.
func TestMailboxTakesOneOfAnySize(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMailboxBytes(1))
		entered, release := harness.RegisterBlock(t, s.Manager)
		c, sc := s.DialClient(w)
		big := `"` + strings.Repeat("x", 300_000) + `"`
		c.Send(harness.Request("block", "first", big))
		harness.Receive(t, entered, "not called")
		c.Send(harness.Request("block", "second", big)) // the first is out of the mailbox
		c.Sync()
		assert.False(t, sc.IsClosed())
		release()
		c.ExpectReply("first", 200, "")
		c.ExpectReply("second", 200, "")
	})
}

// The memory of a mailbox does not grow with the messages that it has seen,
// also if it is never empty.
func TestMailboxMemory(t *testing.T) {
	const waiting, messages = 20, 10_000
	m := harness.NewManager(t)
	var handled []string
	step := make(chan struct{})
	require.NoError(t, m.Register("step", func(_ *ws.Client, msg *ws.Message) error {
		handled = append(handled, msg.RequestID)
		step <- struct{}{}
		return nil
	}))
	c := ws.NewTestClient(m)
	for id := range messages {
		ws.Enqueue(c, []byte(harness.Request("step", strconv.Itoa(id), "")))
		if id >= waiting {
			<-step
		}
	}
	// It may have been another client's before.
	assert.LessOrEqual(t, ws.MailboxCap(c), max(4*waiting, ws.MaxPooledMessages))
	for range waiting {
		<-step
	}
	harness.Shutdown(t, m) // waits for the handler
	require.Len(t, handled, messages)
	for id, got := range handled {
		require.Equal(t, strconv.Itoa(id), got)
	}
}
