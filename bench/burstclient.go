//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// burstForm is how the messages of a burst look. Their numbers begin with 0.
// Immutable.
type burstForm interface {
	append(dst []byte, seq uint64) []byte        // one masked frame
	answer(payload []byte) (seq uint64, ok bool) // to which message it is the answer
	size() int                                   // payload bytes of a message
}

// noopForm is a request of the event "noop"; its number is the request ID.
type noopForm struct {
	template []byte
	payload  int // where it begins in template
	id       int // where the number begins in the payload
	length   int
}

const noopRequest = `{"type":"request","event":"noop","request_id":"%d","data":{"pad":"%s"}}`

var noopID = []byte(`"request_id":"`)

func newNoopForm(size int) *noopForm {
	least := len(fmt.Sprintf(noopRequest, jsonBase, ""))
	text := fmt.Appendf(nil, noopRequest, jsonBase, strings.Repeat("x", size-least))
	frame := maskedFrame(opText, text)
	return &noopForm{frame, len(frame) - size, bytes.Index(text, noopID) + len(noopID), size}
}

func (n *noopForm) append(dst []byte, seq uint64) []byte {
	at := len(dst) + n.payload
	dst = append(dst, n.template...)
	putDigits(dst[at:], n.id, seq)
	return dst
}

func (n *noopForm) answer(payload []byte) (uint64, bool) {
	seq, ok := findDigits(payload, noopID)
	return seq, ok && bytes.Contains(payload, []byte(`"code":200`))
}

func (n *noopForm) size() int { return n.length }

// uploadForm is a binary message; its stamp is the answer.
type uploadForm struct{ *binaryForm }

func newUploadForm(size int) uploadForm { return uploadForm{newBinaryForm(size)} }

func (u uploadForm) append(dst []byte, seq uint64) []byte { return u.binaryForm.append(dst, seq, 0) }

func (u uploadForm) answer(payload []byte) (uint64, bool) {
	if len(payload) < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(payload), true
}

func (u uploadForm) size() int { return u.binaryForm.size }

// burstClient sends a load without waiting, and reads the answers. One goroutine
// writes, the caller of run reads.
type burstClient struct {
	conn net.Conn
	r    *bufio.Reader
	load *burstLoad

	answered, disordered int
}

// dialBurst connects and upgrades. The end of ctx cuts the connection off.
func dialBurst(ctx context.Context, addr string, load *burstLoad) (*burstClient, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	c := &burstClient{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), load: load}
	if err := c.upgrade(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *burstClient) upgrade(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c.conn, upgradeRequest("/ws", "")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade: %s", resp.Status)
	}
	return nil
}

// run returns the time from the first byte sent to the last answer read.
func (c *burstClient) run(ctx context.Context) (time.Duration, error) {
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	wrote := make(chan error, 1)
	began := time.Now()
	go func() { wrote <- c.write() }() // ends with the connection; waited for below
	err := c.read()
	took := time.Since(began)
	if err != nil {
		_ = c.conn.Close()
		return 0, fmt.Errorf("after %d of %d answers: %w", c.answered, c.load.messages, cmp.Or(err, <-wrote))
	}
	return took, <-wrote
}

// write sends all messages as fast as the connection takes them.
func (c *burstClient) write() error {
	var batch []byte
	for seq := range c.load.messages {
		batch = c.load.form.append(batch, uint64(seq))
		if len(batch) < 64<<10 && seq < c.load.messages-1 {
			continue
		}
		if _, err := c.conn.Write(batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return nil
}

// read reads the answers to all messages.
func (c *burstClient) read() error {
	var next uint64
	for c.answered < c.load.messages {
		f, err := c.frame()
		switch {
		case err != nil:
			return err
		case f.op == opPing || f.op == opPong:
			continue
		case f.op == opClose:
			return closedBy(f.head)
		}
		seq, ok := c.load.form.answer(f.head)
		if !ok {
			return fmt.Errorf("an answer is %q", f.head)
		}
		if seq != next {
			c.disordered++
		}
		next = seq + 1
		c.answered++
	}
	return nil
}

// frame reads one frame. Its payload is borrowed until the next call.
func (c *burstClient) frame() (frame, error) { return readFrame(c.r) }

// readFrame reads one frame, which must fit r's buffer. Its payload is borrowed
// until the next read.
func readFrame(r *bufio.Reader) (frame, error) {
	for need := 2; ; {
		b, err := r.Peek(need)
		if err != nil {
			return frame{}, err
		}
		header, size, known, err := frameHeader(b)
		if err != nil {
			return frame{}, err
		}
		if need = header; known {
			need += size
		}
		if known && len(b) >= need {
			_, f, _, err := wholeFrame(b)
			_, _ = r.Discard(need) // what was just seen
			return f, err
		}
	}
}

// closedBy is the error of a connection that the server has closed.
func closedBy(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("the server closed without a code")
	}
	return fmt.Errorf("the server closed with %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}
