package wstest

import (
	"bufio"
	"encoding/json"
	"io"
	"strconv"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"

	"github.com/qi-realtime/ws"
)

// Client is a connected client. Its methods fail the test if an expected message does not arrive
// within a minute. Not safe for concurrent use.
type Client struct {
	t        testing.TB
	conn     stream
	in       io.Reader
	requests int

	// waiting holds the messages that arrived before an awaited one, oldest first.
	waiting []string
	closed  *gobwas.StatusCode // of the server's close frame
	reason  string
}

// stream is the part of a connection that a Client uses.
type stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

func newClient(t testing.TB, conn stream, early *bufio.Reader) *Client {
	c := &Client{t: t, conn: conn, in: conn}
	if early != nil { // messages that arrived with the answer to the upgrade
		c.in = early
	}
	return c
}

// Request sends a request and returns its answer, a response or an error: see Type and Code.
// Messages before the answer are kept for Expect and Next.
func (c *Client) Request(event string, data any) ws.Response {
	c.t.Helper()
	c.requests++
	id := strconv.Itoa(c.requests)
	c.sendEnvelope(ws.TypeRequest, event, id, data)
	var answer ws.Response
	c.await("the answer to "+event, func(text string) bool {
		answer = ws.Response{}
		err := json.Unmarshal([]byte(text), &answer)
		return err == nil && answer.RequestID == id && (answer.Type == ws.TypeResponse || answer.Type == ws.TypeError)
	})
	return answer
}

// Notify sends a notification, which has no answer.
func (c *Client) Notify(event string, data any) {
	c.t.Helper()
	c.sendEnvelope(ws.TypeNotify, event, "", data)
}

func (c *Client) sendEnvelope(typ, event, id string, data any) {
	c.t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		c.t.Fatalf("wstest: data of %s: %v", event, err)
	}
	text, err := json.Marshal(ws.Message{
		Type: typ, Event: event, RequestID: id, Data: encoded, Timestamp: time.Now().Unix(),
	})
	if err != nil {
		c.t.Fatalf("wstest: %s: %v", event, err)
	}
	c.Send(string(text))
}

// Send sends text as a message without an envelope.
func (c *Client) Send(text string) {
	c.t.Helper()
	c.write(gobwas.NewTextFrame([]byte(text)))
}

func (c *Client) write(f gobwas.Frame) {
	c.t.Helper()
	if err := gobwas.WriteFrame(c.conn, gobwas.MaskFrameInPlace(f)); err != nil {
		c.t.Fatalf("wstest: send: %v", err)
	}
}

// Expect waits for a notification of event and decodes its data into v, unless v is nil.
// Messages before it are kept for the next calls.
func (c *Client) Expect(event string, v any) {
	c.t.Helper()
	var m ws.Message
	c.await(event, func(text string) bool {
		m = ws.Message{}
		err := json.Unmarshal([]byte(text), &m)
		return err == nil && m.Type == ws.TypeNotify && m.Event == event
	})
	if v == nil {
		return
	}
	if err := m.Unmarshal(v); err != nil {
		c.t.Fatalf("wstest: data of %s: %v", event, err)
	}
}

// Next waits for the next message, text or binary, and returns its payload.
func (c *Client) Next() string {
	c.t.Helper()
	return c.await("a message", func(string) bool { return true })
}

// ExpectClose waits for the server's close frame, answers it and returns its code and reason.
// The code of a close frame without one is 1005.
func (c *Client) ExpectClose() (code int, reason string) {
	c.t.Helper()
	for c.closed == nil {
		text, ok := c.read("a close frame")
		if ok {
			c.waiting = append(c.waiting, text)
		}
	}
	return int(*c.closed), c.reason
}

// Close closes the connection with 1000 and waits for the server's close frame.
func (c *Client) Close() {
	c.t.Helper()
	if c.closed == nil {
		c.write(gobwas.NewCloseFrame(gobwas.NewCloseFrameBody(gobwas.StatusNormalClosure, "")))
		c.ExpectClose()
	}
	_ = c.conn.Close()
}

// await returns the first matching message, among the waiting and the following ones.
func (c *Client) await(what string, matches func(text string) bool) string {
	c.t.Helper()
	for i, text := range c.waiting {
		if matches(text) {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return text
		}
	}
	for {
		text, ok := c.read(what)
		switch {
		case !ok:
			c.t.Fatalf("wstest: the server has closed the connection with %d %q before %s came", *c.closed, c.reason, what)
		case matches(text):
			return text
		}
		c.waiting = append(c.waiting, text)
	}
}

// read returns the next message, and answers pings. ok is false after the server's close frame.
func (c *Client) read(what string) (text string, ok bool) {
	c.t.Helper()
	for c.closed == nil {
		op, payload, err := c.readFrame()
		if err != nil {
			c.t.Fatalf("wstest: waiting for %s: %v", what, err)
		}
		switch op {
		case gobwas.OpPing:
			// The server may have closed the connection after our close frame.
			_ = gobwas.WriteFrame(c.conn, gobwas.MaskFrameInPlace(gobwas.NewPongFrame(payload)))
		case gobwas.OpClose:
			c.answerClose(payload)
		case gobwas.OpText, gobwas.OpBinary:
			return string(payload), true
		default:
		}
	}
	return "", false
}

// readFrame reads one frame. A Manager does not fragment its messages.
func (c *Client) readFrame() (op gobwas.OpCode, payload []byte, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience)) // fails on a closed connection, as the read does
	h, err := gobwas.ReadHeader(c.in)
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, h.Length)
	_, err = io.ReadFull(c.in, payload)
	return h.OpCode, payload, err
}

// answerClose notes the server's close frame and answers it.
func (c *Client) answerClose(payload []byte) {
	code, reason := gobwas.ParseCloseFrameData(payload)
	if len(payload) == 0 {
		code = gobwas.StatusNoStatusRcvd
	}
	c.closed, c.reason = &code, reason
	// The server may have closed the connection without waiting for the answer.
	_ = gobwas.WriteFrame(c.conn, gobwas.MaskFrameInPlace(gobwas.NewCloseFrame(payload)))
}
