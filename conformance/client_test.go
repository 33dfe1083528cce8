package conformance_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// upgradeRequest is an opening handshake with more header lines, each ended by CRLF.
func upgradeRequest(more string) string {
	return "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n" + more + "\r\n"
}

// client sends bytes and reads frames. It belongs to the test's goroutine.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader

	inflate func(payload string) (string, error) // for frames with RSV1; nil if not negotiated
}

// dial connects without a handshake.
func (s *server) dial(t testing.TB, w way) *client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", s.addr(w), patience)
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = nc.Close() })
	return &client{Conn: nc, t: t, r: bufio.NewReaderSize(nc, 16<<10)}
}

// connect is dial and a handshake with more header lines.
func (s *server) connect(t testing.TB, w way, more string) (*client, *http.Response) {
	t.Helper()
	c := s.dial(t, w)
	_, err := io.WriteString(c, upgradeRequest(more))
	require.NoError(t, err)
	return c, c.accepted()
}

// accepted reads the response that accepts the handshake.
func (c *client) accepted() *http.Response {
	c.t.Helper()
	resp, body := c.response(http.MethodGet)
	require.Equal(c.t, http.StatusSwitchingProtocols, resp.StatusCode, body)
	require.Equal(c.t, sampleAccept, resp.Header.Get("Sec-WebSocket-Accept"))
	return resp
}

// response reads the HTTP response to a method, with the whole body of a refusal.
func (c *client) response(method string) (resp *http.Response, body string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	require.NoError(c.t, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp, string(b)
}

// write sends b in pieces of chop bytes, or at once if chop is 0. TCP_NODELAY is Go's default,
// so that each is a segment of its own.
func (c *client) write(b []byte, chop int) error {
	if chop <= 0 {
		chop = len(b)
	}
	for len(b) > 0 {
		n := min(chop, len(b))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// send sends frames at once.
func (c *client) send(frames ...frame) {
	c.t.Helper()
	require.NoError(c.t, c.write(wire(frames...), 0))
}

// readFrame reads one frame, and demands a header that a server may send.
func (c *client) readFrame() (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{op: head[0] & 0xF, more: head[0]&0x80 == 0, rsv: head[0] >> 4 & 7}
	if head[1]&0x80 != 0 {
		return f, errors.New("a server's frame is masked")
	}
	n, err := c.readLength(head[1])
	if err != nil {
		return f, err
	}
	control := f.op&8 != 0
	switch {
	case control && (f.rsv != 0 || f.more || n > 125):
		return f, fmt.Errorf("a control frame of %d bytes: % x", n, head)
	case f.rsv != 0 && (f.rsv != 4 || c.inflate == nil || f.op == opCont):
		return f, fmt.Errorf("reserved bits in % x", head)
	case n > 2*maxMessage:
		return f, fmt.Errorf("a frame of %d bytes", n)
	}
	payload := make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	f.payload = string(payload)
	if f.rsv != 0 && err == nil {
		f.rsv = 0
		f.payload, err = c.inflate(f.payload)
	}
	return f, err
}

// readLength reads the length behind the second byte of a header, and demands the shortest form.
func (c *client) readLength(second byte) (uint64, error) {
	var b [8]byte
	switch second {
	default:
		return uint64(second), nil
	case 126:
		_, err := io.ReadFull(c.r, b[6:])
		n := binary.BigEndian.Uint64(b[:])
		if err == nil && n < 126 {
			err = fmt.Errorf("length %d in two bytes", n)
		}
		return n, err
	case 127:
		_, err := io.ReadFull(c.r, b[:])
		n := binary.BigEndian.Uint64(b[:])
		if err == nil && n <= 0xFFFF {
			err = fmt.Errorf("length %d in eight bytes", n)
		}
		return n, err
	}
}

// expect reads frames and demands that they equal want.
func (c *client) expect(want ...frame) {
	c.t.Helper()
	for i, w := range want {
		got, err := c.readFrame()
		require.NoError(c.t, err, "frame %d of %d, want %v", i+1, len(want), w)
		if got != w { // not Equal, which would print 16 MiB
			require.Failf(c.t, "another frame", "frame %d of %d: got %v, want %v", i+1, len(want), got, w)
		}
	}
}

// expectFailure demands a close frame with code and a reason, and the end.
func (c *client) expectFailure(code uint16) {
	c.t.Helper()
	f, err := c.readFrame()
	require.NoError(c.t, err, "want close code %d", code)
	c.checkFailure(f, code)
	c.expectEnd()
}

// checkFailure demands that f is a close frame with code and a reason.
func (c *client) checkFailure(f frame, code uint16) {
	c.t.Helper()
	require.Equal(c.t, byte(opClose), f.op, "got %v, want close code %d", f, code)
	require.Greater(c.t, len(f.payload), 2, "a close frame without a reason")
	require.Equal(c.t, code, binary.BigEndian.Uint16([]byte(f.payload)), "%q", f.payload[2:])
	require.True(c.t, utf8.ValidString(f.payload[2:]), "%q", f.payload[2:])
}

// expectEnd demands the orderly end of the connection by the server, and no byte before it. A
// reset would be an error.
func (c *client) expectEnd() {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	require.NoError(c.t, err)
	require.Empty(c.t, b, "bytes behind the last frame")
}

// expectNoBody demands that no body follows the head of a response: neither before the server
// closes the connection nor, if it stays open, before the next response.
func (c *client) expectNoBody() {
	c.t.Helper()
	_ = c.write([]byte("GET /other HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"), 0) // it may have closed
	b, err := io.ReadAll(c.r)
	require.NoError(c.t, err)
	if len(b) > 0 {
		require.True(c.t, strings.HasPrefix(string(b), "HTTP/1.1 404 "), "%q behind the head", b)
	}
}

// expectAlive demands that the connection still works and closes orderly.
func (c *client) expectAlive() {
	c.t.Helper()
	c.send(ping("still there?"))
	c.expect(pong("still there?"))
	c.send(closing(1000, "bye"))
	c.expect(closing(1000, "bye"))
	c.expectEnd()
}
