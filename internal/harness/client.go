package harness

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// Client is a WebSocket client that can also send invalid bytes. Its methods fail the test when an
// expected message does not come. Not safe for concurrent use.
type Client struct {
	net.Conn
	T testing.TB
	R *bufio.Reader // the only reader of Conn
}

// UpgradeRequest returns a handshake with more header lines, each ended by CRLF.
func UpgradeRequest(path, header string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + header + "\r\n"
}

// WriteRaw sends bytes as they are.
func (c *Client) WriteRaw(b string) {
	c.T.Helper()
	_, err := io.WriteString(c, b)
	require.NoError(c.T, err)
}

// ReadResponse reads an HTTP response; the body of a refusal is read whole.
func (c *Client) ReadResponse() (resp *http.Response, body string) {
	c.T.Helper()
	resp, err := http.ReadResponse(c.R, nil)
	require.NoError(c.T, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.T, err)
	return resp, string(b)
}

// Upgrade does the opening handshake.
func (c *Client) Upgrade() {
	c.T.Helper()
	c.WriteRaw(UpgradeRequest("/ws", ""))
	resp, body := c.ReadResponse()
	require.Equal(c.T, http.StatusSwitchingProtocols, resp.StatusCode, body)
}

// Frame encodes a masked frame.
func Frame(op gobwas.OpCode, payload string) string { return Fragment(op, true, payload) }

// WriteInBackground writes b and returns a function that waits for the end.
func (c *Client) WriteInBackground(b string) (wait func()) {
	done := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(b))
		done <- err
	}()
	return func() {
		c.T.Helper()
		require.NoError(c.T, Receive(c.T, done, "the write did not end"))
	}
}

// Send sends text messages in one write.
func (c *Client) Send(messages ...string) {
	c.T.Helper()
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(Frame(gobwas.OpText, m))
	}
	c.WriteRaw(b.String())
}

// Request encodes a request; data is JSON, or empty for none.
func Request(event, id, data string) string {
	if data == "" {
		data = "null"
	}
	return `{"type":"request","event":"` + event + `","request_id":"` + id + `","data":` +
		data + `,"timestamp":1707552000}`
}

// ReadFrame reads one frame.
func (c *Client) ReadFrame() gobwas.Frame {
	c.T.Helper()
	f, err := ReadFrame(c.R)
	require.NoError(c.T, err)
	return f
}

// ReadFrame reads one frame of the server.
func ReadFrame(r io.Reader) (f gobwas.Frame, err error) {
	if f.Header, err = gobwas.ReadHeader(r); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// Next reads one data or close frame.
func (c *Client) Next() gobwas.Frame {
	c.T.Helper()
	for {
		f := c.ReadFrame()
		if f.Header.OpCode != gobwas.OpPing && f.Header.OpCode != gobwas.OpPong {
			return f
		}
	}
}

// Expect reads text messages and compares them.
func (c *Client) Expect(messages ...string) {
	c.T.Helper()
	for _, m := range messages {
		f := c.Next()
		require.Equal(c.T, gobwas.OpText, f.Header.OpCode, "payload %.100q, want %.100q", f.Payload, m)
		if len(m) > 1000 {
			require.True(c.T, m == string(f.Payload), "want %.20q (%d bytes), got %.20q (%d bytes)",
				m, len(m), f.Payload, len(f.Payload))
			continue
		}
		require.Equal(c.T, m, string(f.Payload))
	}
}

// Envelope has the fields of all messages of a server.
type Envelope struct {
	Type      string          `json:"type"`
	Event     string          `json:"event"`
	RequestID string          `json:"request_id"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data"`
	TraceID   string          `json:"trace_id"`
	Timestamp int64           `json:"timestamp"`
}

// ReadEnvelope reads one text message.
func (c *Client) ReadEnvelope() Envelope {
	c.T.Helper()
	f := c.Next()
	require.Equal(c.T, gobwas.OpText, f.Header.OpCode, "payload %q", f.Payload)
	var e Envelope
	require.NoError(c.T, json.Unmarshal(f.Payload, &e), "%s", f.Payload)
	return e
}

// ExpectReply reads a response, checks its ID, code and message, and returns
// its data.
func (c *Client) ExpectReply(id string, code int, message string) string {
	c.T.Helper()
	e := c.ReadEnvelope()
	wantType := "error"
	if code == 200 {
		wantType = "response"
	}
	require.Equal(c.T, wantType, e.Type, "%+v", e)
	require.Equal(c.T, id, e.RequestID, "%+v", e)
	require.Equal(c.T, code, e.Code, "%+v", e)
	if message != "" {
		require.Equal(c.T, message, e.Message)
	}
	require.NotEmpty(c.T, e.TraceID)
	require.InDelta(c.T, time.Now().Unix(), e.Timestamp, 60, "a timestamp in seconds")
	return string(e.Data)
}

// ExpectClose reads until a close frame and compares its code. It returns the
// reason. The client has not answered the close frame then; see Finish.
func (c *Client) ExpectClose(code int) (reason string) {
	c.T.Helper()
	for {
		f := c.Next()
		if f.Header.OpCode == gobwas.OpClose {
			got, reason := gobwas.ParseCloseFrameData(f.Payload)
			require.Equal(c.T, code, int(got), reason)
			return reason
		}
	}
}

// SendClose sends a close frame.
func (c *Client) SendClose(code int, reason string) {
	c.T.Helper()
	c.WriteRaw(Frame(gobwas.OpClose, string(gobwas.NewCloseFrameBody(gobwas.StatusCode(code), reason))))
}

// Finish answers a close and waits for the end of the stream.
func (c *Client) Finish(code int) {
	c.T.Helper()
	c.SendClose(code, "")
	c.ExpectEOF()
}

// ExpectEOF reads until the server ends the connection with a FIN.
func (c *Client) ExpectEOF() {
	c.T.Helper()
	_, err := io.Copy(io.Discard, c.R)
	require.NoError(c.T, err)
}

// Abort closes the connection without a close frame, with a reset.
func (c *Client) Abort() {
	c.T.Helper()
	tcp, ok := c.Conn.(*net.TCPConn)
	require.True(c.T, ok)
	require.NoError(c.T, tcp.SetLinger(0))
	require.NoError(c.T, tcp.Close())
}

// Fragment encodes a masked frame of a fragmented message.
func Fragment(op gobwas.OpCode, fin bool, payload string) string {
	var b strings.Builder
	if err := gobwas.WriteFrame(&b, gobwas.MaskFrame(gobwas.NewFrame(op, fin, []byte(payload)))); err != nil {
		panic(err)
	}
	return b.String()
}

// BigMessage is larger than the socket buffers of both sides together.
var BigMessage = strings.Repeat("0123456789abcdef", 1<<20)

// Sync returns when the server has read all earlier messages.
func (c *Client) Sync() {
	c.T.Helper()
	c.WriteRaw(Frame(gobwas.OpPing, "sync"))
	f := c.ReadFrame()
	require.Equal(c.T, gobwas.OpPong, f.Header.OpCode, "payload %q", f.Payload)
}
