//go:build linux

package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/load"
)

// burstPayload is how the messages of a burst look. Their numbers begin with 0.
// Immutable.
type burstPayload interface {
	append(dst []byte, seq uint64) []byte        // one masked frame
	answer(payload []byte) (seq uint64, ok bool) // the number of the answered message
	size() int                                   // payload bytes of a message
}

// noopPayload is a request of the event "noop"; its number is the request ID.
type noopPayload struct {
	template []byte
	payload  int // where it begins in template
	id       int // where the number begins in the payload
	length   int
}

const noopRequest = `{"type":"request","event":"noop","request_id":"%d","data":{"pad":"%s"}}`

var noopID = []byte(`"request_id":"`)

func newNoopPayload(size int) *noopPayload {
	least := len(fmt.Sprintf(noopRequest, load.JSONBase, ""))
	text := fmt.Appendf(nil, noopRequest, load.JSONBase, strings.Repeat("x", size-least))
	frame := load.MaskedFrame(load.OpText, text)
	return &noopPayload{frame, len(frame) - size, bytes.Index(text, noopID) + len(noopID), size}
}

func (n *noopPayload) append(dst []byte, seq uint64) []byte {
	at := len(dst) + n.payload
	dst = append(dst, n.template...)
	load.PutDigits(dst[at:], n.id, seq)
	return dst
}

func (n *noopPayload) answer(payload []byte) (uint64, bool) {
	seq, ok := load.FindDigits(payload, noopID)
	return seq, ok && bytes.Contains(payload, []byte(`"code":200`))
}

func (n *noopPayload) size() int { return n.length }

// uploadPayload is a binary message; its stamp is the answer.
type uploadPayload struct{ *load.BinaryPayload }

func newUploadPayload(size int) uploadPayload { return uploadPayload{load.NewBinaryPayload(size)} }

func (u uploadPayload) append(dst []byte, seq uint64) []byte {
	return u.Append(dst, seq, 0)
}

func (u uploadPayload) answer(payload []byte) (uint64, bool) {
	if len(payload) < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(payload), true
}

func (u uploadPayload) size() int { return u.Size }

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
	return load.Upgrade(c.conn, c.r)
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
		batch = c.load.payload.append(batch, uint64(seq))
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
		case f.Op == load.OpPing || f.Op == load.OpPong:
			continue
		case f.Op == load.OpClose:
			return load.ClosedBy(f.Head)
		}
		seq, ok := c.load.payload.answer(f.Head)
		if !ok {
			return fmt.Errorf("an answer is %q", f.Head)
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
func (c *burstClient) frame() (load.Frame, error) { return load.ReadFrame(c.r) }
