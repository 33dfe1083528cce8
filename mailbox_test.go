package ws_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// registerBlock registers "block", which says that it was called and answers
// when release has been called.
func registerBlock(t *testing.T, m *ws.Manager) (entered <-chan string, release func()) {
	t.Helper()
	begun, released := make(chan string, 10_000), make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	require.NoError(t, m.Register("block", func(c *ws.Client, m *ws.Message) error {
		begun <- m.RequestID
		<-released
		return c.SendResponse(m.RequestID, 200, "success", nil)
	}))
	return begun, release
}

// sync returns when the server has taken everything that was sent.
func (c *client) sync() {
	c.t.Helper()
	c.raw(frame(gws.OpPing, "sync"))
	f := c.readFrame()
	require.Equal(c.t, gws.OpPong, f.Header.OpCode, "payload %q", f.Payload)
}

// boundedMailboxes hold 8 messages that blockMessage makes of one-digit ids.
func boundedMailboxes() map[string]ws.Option {
	length := int64(len(blockMessage(1)))
	return map[string]ws.Option{
		"by count":         ws.WithMailboxSize(8),
		"by bytes":         ws.WithMailboxBytes(8 * length),
		"by bytes, uneven": ws.WithMailboxBytes(9*length - 1),
	}
}

func blockMessage(id int) string { return request("block", strconv.Itoa(id), "") }

// As many messages as a mailbox holds may wait, and are handled.
func TestMailboxAtItsBound(t *testing.T) {
	for name, bound := range boundedMailboxes() {
		t.Run(name, func(t *testing.T) {
			onBothWays(t, func(t *testing.T, w way) {
				s := start(t, bound)
				entered, release := registerBlock(t, s.Manager)
				c, sc := s.dialClient(w)
				c.send(blockMessage(0))
				receive(t, entered, "not called")
				for id := 1; id <= 8; id++ {
					c.send(blockMessage(id))
				}
				c.sync()
				assert.False(t, sc.IsClosed())
				release()
				for id := range 9 {
					c.expectReply(strconv.Itoa(id), 200, "")
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
			onBothWays(t, func(t *testing.T, w way) {
				s := start(t, bound, ws.WithLoops(1))
				registerGreetings(t, s.Manager)
				entered, release := registerBlock(t, s.Manager)
				bystander := s.dial(w)
				c, sc := s.dialClient(w)
				var burst []string
				for id := range messages {
					burst = append(burst, blockMessage(id))
				}
				c.send(burst...)
				receive(t, entered, "not called")
				eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
				bystander.send(request("only", "1", ""))
				bystander.expectReply("1", 200, "")
				assert.False(t, sc.IsClosed())
				release()
				for id := range messages {
					c.expectReply(strconv.Itoa(id), 200, "")
				}
				eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
			})
		})
	}
}

// A mailbox that is empty takes one message of any size.
func TestMailboxTakesOneOfAnySize(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithMailboxBytes(1))
		entered, release := registerBlock(t, s.Manager)
		c, sc := s.dialClient(w)
		big := `"` + strings.Repeat("x", 300_000) + `"`
		c.send(request("block", "first", big))
		receive(t, entered, "not called")
		c.send(request("block", "second", big)) // the first is out of the mailbox
		c.sync()
		assert.False(t, sc.IsClosed())
		release()
		c.expectReply("first", 200, "")
		c.expectReply("second", 200, "")
	})
}

// The memory of a mailbox does not grow with the messages that it has seen,
// also if it is never empty.
func TestMailboxMemory(t *testing.T) {
	const waiting, messages = 20, 10_000
	m := newManager(t)
	var handled []string
	step := make(chan struct{})
	require.NoError(t, m.Register("step", func(_ *ws.Client, msg *ws.Message) error {
		handled = append(handled, msg.RequestID)
		step <- struct{}{}
		return nil
	}))
	c := ws.NewTestClient(m)
	for id := range messages {
		ws.Enqueue(c, []byte(request("step", strconv.Itoa(id), "")))
		if id >= waiting {
			<-step
		}
	}
	// It may have been another client's before.
	assert.LessOrEqual(t, ws.MailboxCap(c), max(4*waiting, ws.MaxPooledMessages))
	for range waiting {
		<-step
	}
	shutdown(t, m) // waits for the handler
	require.Len(t, handled, messages)
	for id, got := range handled {
		require.Equal(t, strconv.Itoa(id), got)
	}
}
