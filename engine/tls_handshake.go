package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/qi-realtime/ws/pool"
)

const (
	// maxBehindHello bounds the bytes that a peer may send behind its
	// ClientHello before the server answers. Every version of TLS has a few
	// bytes there at most, because the server does not offer early data (RFC
	// 8446 section 2.3).
	maxBehindHello = 4 << 10
	// maxUnreadHandshake bounds the later bytes of the peer that the worker has
	// not read; beyond it the connection is paused until the worker has read
	// them.
	maxUnreadHandshake = 16 << 10
	// maxHandshakeBytes bounds the bytes that crypto/tls reads in a handshake
	// without client certificates, with the first data behind it, but without
	// the hello. maxCertificateBytes, the limit of crypto/tls, is added for
	// client certificates.
	maxHandshakeBytes   = 64 << 10
	maxCertificateBytes = 256 << 10
)

var (
	errBehindHello    = errors.New("ws: the peer goes on behind its TLS ClientHello before it is answered")
	errHandshakeBytes = errors.New("ws: TLS handshake too large")
)

// tlsHandshake is a handshake in progress. Errors of crypto/tls are final here,
// so a handshake cannot stop and resume as reading can. It runs on a worker,
// where its reads wait for bytes from the loop.
type tlsHandshake struct {
	// Immutable.
	conn   *Conn
	tls    *tls.Conn
	local  net.Addr
	ctx    context.Context // for the application's certificate callbacks
	cancel context.CancelFunc

	ticket pool.Ticket    // loop-confined
	place  handshakePlace // guarded by handshakes.mu

	// Used by the worker only.
	computes bool
	given    int // bytes that crypto/tls has read

	// Guarded by mu.
	mu       sync.Mutex
	arrived  sync.Cond // on mu; the worker waits for it
	in       []byte    // received, not read
	behind   int       // bytes received behind the hello
	answered bool      // the worker has written
	full     bool      // the loop waits until the worker has read everything
	out      []byte    // written, not sent
	posted   bool      // the handshake is in the shard's inbox
	closed   bool      // no more bytes come
	ended    bool
	err      error // of the handshake, once ended
}

// beginHandshake starts the handshake of c, whose ClientHello is the first n
// bytes of b.
func (t *tlsConn) beginHandshake(c *Conn, b []byte, n int) {
	s := c.shard
	t.conn = tls.Server(t, s.eng.cfg.TLSConfig)
	h := &tlsHandshake{conn: c, tls: t.conn, local: c.gc.LocalAddr(), in: append([]byte(nil), b...), behind: len(b) - n}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.arrived.L = &h.mu
	t.handshake = h
	if !s.eng.handshakes.submit(h) {
		s.closeLater(c, ErrStopped)
	}
}

// Run performs the handshake on a worker.
func (h *tlsHandshake) Run() {
	p := h.conn.shard.eng.handshakes
	if !p.start(h) {
		return // its connection ended while it waited for the worker
	}
	err := errInternal // for a panic
	defer func() {
		p.rest(h)
		p.end(h)
		h.cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended, h.err = true, err
		h.postLocked()
	}()
	if !p.compute(h) {
		err = net.ErrClosed
		return
	}
	err = h.tls.HandshakeContext(h.ctx)
}

// read waits for bytes of the peer and returns them. The worker calls it.
func (h *tlsHandshake) read(p []byte) (n int, err error) {
	if n, err = h.readArrived(p); n == 0 && err == nil {
		if !h.awaitPeer() {
			return 0, net.ErrClosed
		}
		n, err = h.readArrived(p)
	}
	h.given += n
	if h.given > h.limit() {
		return 0, errHandshakeBytes
	}
	return n, err
}

// limit returns the number of bytes that crypto/tls may read.
func (h *tlsHandshake) limit() int {
	cfg := h.conn.shard.eng.cfg.TLSConfig
	if cfg.ClientAuth == tls.NoClientCert && cfg.GetConfigForClient == nil {
		return maxHelloBytes + maxHandshakeBytes
	}
	return maxHelloBytes + maxHandshakeBytes + maxCertificateBytes
}

// readArrived reads the bytes that have come. It posts to the loop if the peer
// may send more.
func (h *tlsHandshake) readArrived(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, net.ErrClosed
	}
	n := copy(p, h.in)
	h.in = h.in[n:]
	if len(h.in) == 0 {
		h.in = nil
		if h.full {
			h.full = false
			h.postLocked()
		}
	}
	return n, nil
}

// awaitPeer waits for bytes of the peer while other handshakes compute. It
// returns false if the handshake was closed.
func (h *tlsHandshake) awaitPeer() bool {
	p := h.conn.shard.eng.handshakes
	p.rest(h)
	p.waitBegins(h)
	h.mu.Lock()
	for len(h.in) == 0 && !h.closed {
		h.arrived.Wait()
	}
	h.mu.Unlock()
	p.waitEnds(h)
	return p.compute(h)
}

// write hands p, which is borrowed, to the loop. The worker calls it.
func (h *tlsHandshake) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, net.ErrClosed
	}
	h.answered = true
	h.out = append(h.out, p...)
	h.postLocked()
	return len(p), nil
}

// postLocked posts the handshake to its loop. It never waits.
func (h *tlsHandshake) postLocked() {
	if !h.posted {
		h.posted = true
		h.conn.shard.postUrgent(h)
	}
}

// feed hands b, which is borrowed, to the worker. It returns the number of
// bytes that the worker has not read, or an error if the peer must not send any
// yet.
func (h *tlsHandshake) feed(b []byte) (unread int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behind += len(b)
	if !h.answered && h.behind > maxBehindHello {
		return 0, errBehindHello
	}
	h.in = append(h.in, b...)
	h.full = len(h.in) > maxUnreadHandshake
	h.arrived.Signal()
	return len(h.in), nil
}

// close ends the handshake; the worker gives up.
func (h *tlsHandshake) close() {
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.in = nil
	h.arrived.Signal()
}

// abandon closes the handshake of a connection that has ended.
func (h *tlsHandshake) abandon() {
	h.close()
	h.conn.shard.eng.handshakes.abandon(h)
}

// outcome is the work that a handshake leaves to the loop.
type outcome struct {
	out   []byte // to be sent
	space bool   // the peer may send more
	ended bool
	err   error // of the handshake, once ended
}

// take returns the outcome since the last call.
func (h *tlsHandshake) take() (o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o = outcome{out: h.out, space: len(h.in) <= maxUnreadHandshake, ended: h.ended, err: h.err}
	h.out, h.posted = nil, false
	return o
}

// RunInLoop sends the output of the worker, and opens the connection when the
// handshake has ended.
func (h *tlsHandshake) RunInLoop(s *Shard) {
	c := h.conn
	o := h.take()
	if c.state.Load() == stateClosed || c.is(pendingClose) || c.is(lingering) {
		return
	}
	t := c.tls()
	t.sealed = append(t.sealed, o.out...)
	if o.ended && o.err != nil {
		t.fail(c, o.err)
		return
	}
	t.pushSealed(c)
	if o.ended || o.space {
		c.unpause(pausedEarly)
	}
	if o.ended {
		t.handshake = nil
		t.open(c, h.in) // the worker does not use it any more
	}
}

// feedHandshake hands b, which is borrowed, to the handshake of c.
func (t *tlsConn) feedHandshake(c *Conn, b []byte) {
	n, err := t.handshake.feed(b)
	switch {
	case err != nil:
		t.handshake.abandon()
		t.sealed = append(t.sealed, alertUnexpectedMessage...)
		t.fail(c, err)
	case n > maxUnreadHandshake:
		c.pauseEarly(n)
	}
}

// logTLS logs the cause of a TLS failure, at level debug, because most failures
// come from peers and there may be many.
func (c *Conn) logTLS(err error) {
	c.shard.eng.cfg.Logger.Debug("ws: TLS failed", slog.Any("error", err), slog.Any("remote", c.RemoteAddr()))
}
