package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
)

const (
	// maxUnsent is the number of bytes that wait for the socket from which on requests wait in
	// the queue of the client.
	maxUnsent = 64 << 10
	// maxHead bounds the head of the server's answer to the handshake.
	maxHead = 64 << 10
	// closeTimeout is the longest wait for the server's close frame, and for the last write.
	closeTimeout = 5 * time.Second
)

// link is one attempt to connect, and then the connection. Its goroutine connects and reads.
// Another one writes, as long as there is something to write. Guarded by Client.mu, as far as
// nothing else is said.
type link struct {
	c       *Client            // immutable
	ctx     context.Context    // ends an attempt; immutable
	cancel  context.CancelFunc // immutable
	refresh bool               // of the attempt; immutable
	raw     net.Conn           // conn without TLS; set by the goroutine of the link before open
	conn    net.Conn           // like raw
	decoder codec.Decoder      // of the goroutine of the link

	open     bool
	openedAt time.Time
	closing  bool // the close frame is queued: nothing may follow
	finished bool // the goroutine has ended: the writer closes the connection
	out      []byte
	writing  bool
	joins    int         // that wait for their answers
	refused  bool        // a join was refused, and is sent again
	refusals int         // in a row
	pause    *time.Timer // until the next join, or nil
	heard    bool        // bytes have come since the last beat
	pinged   bool        // since the server was heard
	left     bool        // closed by the client, which connects again
	stalled  bool        // the application is slow; the link does not read
	beat     *time.Timer
	grace    *time.Timer // until the end of a connection that was replaced
	deadline *time.Timer // of the server's close frame
}

// newLinkLocked starts an attempt.
func (c *Client) newLinkLocked() *link {
	l := &link{c: c, refresh: c.refresh}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	c.links = append(c.links, l)
	c.startLocked(l.run)
	return l
}

// run connects and reads until the connection ends.
func (l *link) run() {
	in, err := l.connect()
	if err == nil {
		err = io.EOF
		if l.c.linkOpened(l) {
			err = l.read(in)
		}
	}
	l.cancel()
	l.c.linkEnded(l, err)
	l.finish(err)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.goroutineEndedLocked()
}

// connect opens the connection.
func (l *link) connect() (*bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.c.handshake)
	defer cancel()
	u := *l.c.url
	a := &Attempt{URL: &u, Header: l.c.header.Clone(), Refresh: l.refresh}
	if a.Header == nil {
		a.Header = make(http.Header)
	}
	if l.c.prepare != nil {
		if err := l.c.prepare(ctx, a); err != nil {
			return nil, fmt.Errorf("client: prepare: %w", err)
		}
		l.c.prepared(l)
	}
	offer := l.c.offer(a.URL, a.Header)
	offer.Key = codec.NewKey()
	if err := codec.CheckOffer(offer); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	in, err := l.dialAndUpgrade(ctx, a.URL, offer)
	if err != nil && l.raw != nil {
		_ = l.raw.Close()
	}
	return in, err
}

func (l *link) dialAndUpgrade(ctx context.Context, u *url.URL, offer codec.Offer) (*bufio.Reader, error) {
	var err error
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	l.raw, err = l.c.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("client: dial: %w", err)
	}
	l.conn = l.raw
	stop := context.AfterFunc(ctx, func() { _ = l.raw.Close() })
	if u.Scheme == "wss" {
		cfg := l.c.tls.Clone()
		if cfg == nil {
			cfg = new(tls.Config)
		}
		if cfg.ServerName == "" {
			cfg.ServerName = u.Hostname()
		}
		l.conn = tls.Client(l.raw, cfg)
	}
	in, err := l.upgrade(offer)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return in, err
}

// upgrade does the opening handshake.
func (l *link) upgrade(offer codec.Offer) (*bufio.Reader, error) {
	if _, err := l.conn.Write(codec.AppendOffer(nil, offer)); err != nil {
		return nil, fmt.Errorf("client: handshake: %w", err)
	}
	head := &io.LimitedReader{R: l.conn, N: maxHead}
	in := bufio.NewReader(head)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, fmt.Errorf("client: handshake: %w", err)
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(r)
	}
	subprotocol, err := codec.CheckAccept(r, offer)
	if err != nil {
		return nil, fmt.Errorf("client: handshake: %w", err)
	}
	head.N = math.MaxInt64
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.subprotocol = subprotocol
	return in, nil
}

// refusal returns the error for a response that refuses the handshake.
func refusal(r *http.Response) error {
	defer r.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10)) // a part will do
	seconds, _ := strconv.Atoi(r.Header.Get("Retry-After"))
	return &HandshakeError{
		Status: r.StatusCode, Message: strings.TrimSpace(string(body)), RetryAfter: retryTime(int64(seconds) * 1000),
	}
}

// read handles the messages of the server until the connection ends. The error is never nil.
func (l *link) read(in *bufio.Reader) error {
	defer l.decoder.Release()
	for {
		if _, err := in.Peek(1); err != nil {
			return &CloseError{Code: int(codec.CloseAbnormal), Err: err}
		}
		b, _ := in.Peek(in.Buffered())
		if err := l.consume(b); err != nil {
			return err
		}
		_, _ = in.Discard(len(b)) // they are buffered
		l.awaitSpace()
	}
}

// consume handles the bytes of a read.
func (l *link) consume(b []byte) error {
	l.c.mu.Lock()
	l.heard, l.pinged = true, false
	l.c.mu.Unlock()
	for len(b) > 0 {
		n, m, ok, err := l.decoder.NextUnmasked(b, l.c.messageLimit)
		if err != nil {
			return l.refuse(err)
		}
		b = b[n:]
		if !ok {
			continue
		}
		switch m.Op {
		case codec.OpText, codec.OpBinary:
			l.c.receive(l, m.Op == codec.OpText, m.Payload)
		case codec.OpPing:
			l.c.mu.Lock()
			l.sendLocked(codec.OpPong, m.Payload)
			l.c.mu.Unlock()
		case codec.OpClose:
			return l.closed(m.Payload)
		default: // a pong
		}
	}
	l.decoder.Done()
	return nil
}

// refuse closes the connection because of a frame, and returns the error of its end.
func (l *link) refuse(err error) error {
	code := codec.CloseCodeOf(err)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.closeLocked(code)
	return &CloseError{Code: int(code), Err: err}
}

// closed answers the server's close frame, and returns the error of the connection's end.
func (l *link) closed(payload []byte) error {
	code, reason, err := codec.ParseClose(payload)
	if err != nil {
		return l.refuse(err)
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.closeLocked(code)
	return &CloseError{Code: int(code), Reason: reason}
}

// sendLocked queues a frame, and reports whether the link is open. The payload is borrowed.
func (l *link) sendLocked(op codec.Opcode, payload []byte) bool {
	if !l.open || l.closing {
		return false
	}
	var key [4]byte
	binary.NativeEndian.PutUint32(key[:], rand.Uint32())
	l.out = codec.AppendMaskedFrame(l.out, op, key, payload)
	if !l.writing {
		l.writing = true
		l.c.startLocked(l.write)
	}
	return true
}

// closeLocked queues a close frame, and gives the server some time for its own.
func (l *link) closeLocked(code codec.CloseCode) {
	_, payload := codec.SplitFrame(codec.AppendClose(nil, code, ""))
	if !l.sendLocked(codec.OpClose, payload) {
		return
	}
	l.closing = true
	l.deadline = time.AfterFunc(closeTimeout, func() { _ = l.raw.Close() })
	l.c.space.Broadcast()
}

// write writes all that is queued.
func (l *link) write() {
	c := l.c
	var spare []byte
	c.mu.Lock()
	for len(l.out) > 0 {
		out := l.out
		l.out = spare[:0]
		c.mu.Unlock()
		_, err := l.conn.Write(out)
		c.mu.Lock()
		if err != nil {
			l.out = nil
			_ = l.raw.Close() // which ends the goroutine of the link
			break
		}
		if spare = out; cap(spare) > maxUnsent {
			spare = nil
		}
		c.flushLocked()
	}
	l.writing = false
	finished := l.finished
	c.mu.Unlock()
	if finished {
		_ = l.conn.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if finished && l.deadline != nil {
		l.deadline.Stop()
	}
	c.goroutineEndedLocked()
}

// finish ends a connection. After a close frame it lets the writer end first.
func (l *link) finish(err error) {
	if l.raw == nil {
		return
	}
	closed, ok := errors.AsType[*CloseError](err)
	l.c.mu.Lock()
	l.open, l.finished = false, true
	for _, t := range []*time.Timer{l.beat, l.pause, l.grace} {
		if t != nil {
			t.Stop()
		}
	}
	wait := l.writing && ok && closed.Code != int(codec.CloseAbnormal)
	if !wait && l.deadline != nil {
		l.deadline.Stop()
	}
	l.c.mu.Unlock()
	if !wait { // otherwise the writer closes it; the deadline ends a blocked write
		_ = l.conn.Close()
	}
}

// startBeatLocked begins to check for a silent connection.
func (l *link) startBeatLocked() {
	if l.c.heartbeat > 0 {
		l.beat = time.AfterFunc(l.c.heartbeat, l.checkSilence)
	}
}

// checkSilence sends a ping to a silent server, and ends the connection if it stays silent.
func (l *link) checkSilence() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	switch {
	case !l.open || l.closing:
		return
	case l.heard || l.stalled:
		l.heard = false
	case l.pinged:
		_ = l.raw.Close()
		return
	default:
		l.pinged = true
		l.sendLocked(codec.OpPing, nil)
	}
	l.beat.Reset(l.c.heartbeat)
}
