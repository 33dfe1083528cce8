package conformance_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// TestPooled runs the cases of lengths, fragments, control frames, closes and limits, and some
// cases of large and many messages, on servers whose handler runs on workers, the default.
func TestPooled(t *testing.T) {
	large := section{name: "5.6", cases: []testCase{
		echoes("5.6/4 times binary of 1 MiB", 0, slices.Repeat([]frame{binaryOf(octets(1 << 20))}, 4)...),
		echoes("5.6/1000 times text of 64 bytes", 0, slices.Repeat([]frame{text(pattern(64))}, 1000)...),
		{
			id: "5.6/text of 1 MiB in fragments", send: wire(fragments(opText, pattern(1<<20), 4<<10)...),
			want: []frame{text(pattern(1 << 20))},
		},
	}}
	for _, sec := range []section{framing(), fragmentation(), control(), closes(), limits(), large} {
		sec.pooled = true
		sec.opts = append([]ws.Option{func(c *ws.Config) {
			c.HandlerMode = ws.Pooled
			c.MailboxSize, c.MailboxBytes = 1000, 4<<20 // a case may send all messages before the first is handled
		}}, sec.opts...)
		sec.cases = slices.DeleteFunc(sec.cases, func(tc testCase) bool {
			return tc.chop == 1 && len(tc.send) > 1000 // these cases take long, and send the same messages
		})
		t.Run(sec.name, sec.run)
	}
}

// runPooled is run for echoes from a worker. They come in their order and before the close frame.
// The answers to control frames, which the event loop sends, come before or behind them.
func (tc *testCase) runPooled(c *client) {
	c.t.Helper()
	written := make(chan error, 1)
	go func() { written <- c.write(tc.send, tc.chop) }() // waited for, or ended by the connection's end
	var messages, others []frame
	for _, f := range tc.want {
		if f.op&8 == 0 {
			messages = append(messages, f)
		} else {
			others = append(others, f)
		}
	}
	closes := tc.code != 0 || tc.ended
	for closed := false; !closed && (closes || len(messages)+len(others) > 0); {
		f, err := c.readFrame()
		require.NoError(c.t, err)
		closed = f.op == opClose
		list := &others
		if f.op&8 == 0 {
			list = &messages
		} else if closed && tc.code != 0 {
			require.Empty(c.t, others)
			require.Empty(c.t, messages)
			c.checkFailure(f, tc.code)
			continue
		}
		require.NotEmpty(c.t, *list, "got %v", f)
		if f != (*list)[0] {
			require.Failf(c.t, "another frame", "got %v, want %v", f, (*list)[0])
		}
		*list = (*list)[1:]
	}
	require.Empty(c.t, others)
	require.Empty(c.t, messages)
	if !closes {
		require.NoError(c.t, <-written)
		c.expectAlive()
		return
	}
	if tc.then != nil {
		require.NoError(c.t, <-written)
		go func() { written <- c.write(tc.then, tc.chop) }() // as above
	}
	c.expectEnd()
	_ = c.Close()
	<-written // the server may have closed the connection before the end of the write
}
