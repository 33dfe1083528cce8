//go:build perf

package otel_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// costClient sends the same messages again and again. Not safe for concurrent use.
type costClient struct {
	conn    net.Conn
	r       *bufio.Reader
	frames  []byte
	answers int // to frames
}

// dialCost connects a client that sends flight messages at once, and receives answers.
func dialCost(t *testing.T, addr, message string, flight, answers int) *costClient {
	conn, r, _, err := gobwas.Dial(context.Background(), "ws://"+addr+"/ws")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	if r == nil {
		r = bufio.NewReaderSize(conn, 64<<10)
	}
	var frames strings.Builder
	for range flight {
		frame := gobwas.MaskFrame(gobwas.NewTextFrame([]byte(message)))
		require.NoError(t, gobwas.WriteFrame(&frames, frame))
	}
	return &costClient{conn, r, []byte(frames.String()), answers}
}

func (c *costClient) send() error {
	if len(c.frames) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.frames)
	return err
}

// receive reads all answers, and pings of the heartbeat before them, which it need not answer in the
// time of the test.
func (c *costClient) receive() error {
	for got := 0; got < c.answers; {
		head, err := c.r.Peek(4)
		if err != nil {
			return err
		}
		size := 2 + int(head[1])
		if head[1] == 126 {
			size = 4 + int(binary.BigEndian.Uint16(head[2:]))
		}
		if head[0] == 0x80|byte(gobwas.OpText) {
			got++
		} else if head[0] == 0x80|byte(gobwas.OpClose) {
			return io.ErrUnexpectedEOF
		}
		if _, err := c.r.Discard(size); err != nil {
			return err
		}
	}
	return nil
}
