package proxies_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// client is a client of gorilla/websocket. Not safe for concurrent use.
type client struct {
	t        *testing.T
	conn     *websocket.Conn
	requests int
}

// target is where clients connect to.
type target struct {
	host  string         // with the port
	roots *x509.CertPool // nil without TLS
	from  string         // the client's own IP address; empty for any
}

// dial connects as the page of a browser does, and adds the lines of header.
func (to target) dial(t *testing.T, header http.Header) *client {
	t.Helper()
	c, err := to.tryDial(t, header)
	require.NoError(t, err)
	return c
}

// tryDial is dial for a client that may be refused.
func (to target) tryDial(t *testing.T, header http.Header) (*client, error) {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience}
	d.NetDialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(to.from)}}).DialContext
	if header = header.Clone(); header == nil {
		header = http.Header{}
	}
	scheme, page := "ws://", "http://"
	if to.roots != nil {
		scheme, page = "wss://", "https://"
		d.TLSClientConfig = &tls.Config{RootCAs: to.roots, ServerName: "127.0.0.1"}
	}
	header.Set("Origin", page+to.host)
	conn, resp, err := d.DialContext(t.Context(), scheme+to.host+"/ws", header)
	if err != nil {
		if resp != nil {
			return nil, &refusal{resp.StatusCode}
		}
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn}, nil
}

// refusal is the error of a handshake that was answered with another status than 101.
type refusal struct{ status int }

func (r *refusal) Error() string { return http.StatusText(r.status) }

// send sends a request and does not wait for the answer.
func (c *client) send(event string, data any) {
	c.t.Helper()
	c.requests++
	encoded, err := json.Marshal(data)
	require.NoError(c.t, err)
	require.NoError(c.t, c.conn.WriteJSON(ws.Message{
		Type: ws.TypeRequest, Event: event, RequestID: strconv.Itoa(c.requests), Data: encoded,
	}))
}

// request sends a request, expects success, and decodes the answer's data into v unless v is nil.
func (c *client) request(event string, data, v any) {
	c.t.Helper()
	c.send(event, data)
	var answer struct {
		Type      string          `json:"type"`
		RequestID string          `json:"request_id"`
		Code      int             `json:"code"`
		Data      json.RawMessage `json:"data"`
	}
	message := c.read()
	require.NoError(c.t, json.Unmarshal([]byte(message), &answer))
	require.Equal(c.t, ws.TypeResponse, answer.Type, "%.100s", message)
	require.Equal(c.t, strconv.Itoa(c.requests), answer.RequestID)
	require.Equal(c.t, 200, answer.Code)
	if v != nil {
		require.NoError(c.t, json.Unmarshal(answer.Data, v))
	}
}

// echo has the server echo s.
func (c *client) echo(s string) {
	c.t.Helper()
	var got text
	c.request("echo", text{s}, &got)
	require.True(c.t, got.Text == s, "the echo of %d bytes is another text", len(s))
}

// whoami returns the server's view of the client's upgrade request.
func (c *client) whoami() (r request) {
	c.t.Helper()
	c.request("whoami", nil, &r)
	return r
}

// read returns the next message.
func (c *client) read() string {
	c.t.Helper()
	_, payload, err := c.receive()
	require.NoError(c.t, err)
	return string(payload)
}

func (c *client) receive() (int, []byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	return c.conn.ReadMessage()
}

// close sends a close frame, and expects the same back.
func (c *client) close(code int, reason string) {
	c.t.Helper()
	frame := websocket.FormatCloseMessage(code, reason)
	require.NoError(c.t, c.conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)))
	c.expectClose(code, reason)
}

// expectClose waits for a close frame; answers before it are passed over.
func (c *client) expectClose(code int, reason string) {
	c.t.Helper()
	for {
		_, _, err := c.receive()
		if err == nil {
			continue
		}
		var got *websocket.CloseError
		require.ErrorAs(c.t, err, &got)
		assert.Equal(c.t, code, got.Code)
		assert.Equal(c.t, reason, got.Text)
		return
	}
}
