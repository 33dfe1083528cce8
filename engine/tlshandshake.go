package engine

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/pool"
)

const (
	// maxHelloBytes bounds a ClientHello, its record headers included. Usual
	// ones take 200 to 2,000 bytes.
	maxHelloBytes = 32 << 10
	// maxHandshakeBytes bounds what a peer sends ahead of a handshake that runs
	// or waits for a worker. A certificate message takes 256 KiB at most
	// (crypto/tls), and early messages may follow.
	maxHandshakeBytes = 256<<10 + maxEarlyBytes
	// silentShare is the part of the handshake timeout that a peer may be silent
	// while others wait for its worker: 1 s by default.
	silentShare = 10
)

var (
	errNoTLS       = errors.New("ws: the peer does not speak TLS")
	errHelloBytes  = errors.New("ws: TLS ClientHello too large")
	errNoHandshake = errors.New("ws: TLS handshake not finished in time")
)

// handshakes runs TLS handshakes on a bounded number of workers, in the order
// in which they are submitted. Safe for concurrent use.
type handshakes struct {
	// Immutable.
	eng     *Engine
	workers *pool.Workers

	// Atomic.
	waiting atomic.Int64 // for a worker

	mu      sync.Mutex
	running map[*tlsHandshake]struct{} // guarded by mu
}

func newHandshakes(e *Engine) *handshakes {
	report := func(r any) { e.reportPanic("TLS handshake", r) }
	return &handshakes{
		eng: e, workers: pool.NewWorkers(e.cfg.TLSHandshakes, report), running: make(map[*tlsHandshake]struct{}),
	}
}

// submit queues h for a worker. It returns false once the engine has ended.
func (p *handshakes) submit(h *tlsHandshake) bool {
	p.waiting.Add(1)
	return p.workers.Submit(h)
}

func (p *handshakes) started(h *tlsHandshake) {
	p.waiting.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[h] = struct{}{}
}

func (p *handshakes) ended(h *tlsHandshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, h)
}

// relieve gives the workers of peers that have been silent for long to those
// who wait for one: as many as wait, the longest silent first. Otherwise peers
// that send a ClientHello and no more could hold all workers for the whole
// handshake timeout. It is called at every tick.
func (p *handshakes) relieve() {
	n := int(p.waiting.Load())
	if n <= 0 {
		return
	}
	type silent struct {
		h     *tlsHandshake
		since time.Duration
	}
	var all []silent
	limit := p.eng.elapsed() - p.eng.cfg.HandshakeTimeout/silentShare
	p.mu.Lock()
	for h := range p.running {
		if since, ok := h.silentSince(); ok && since <= limit {
			all = append(all, silent{h, since})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b silent) int { return cmp.Compare(a.since, b.since) })
	for _, s := range all[:min(n, len(all))] {
		s.h.close()
	}
}

// close waits for the workers, whose connections have ended.
func (p *handshakes) close() {
	_ = p.workers.Close(context.Background()) // an error would be the context's
}

// tlsHandshake is a handshake under way. Its errors are final, so it cannot be
// interrupted and resumed as reading can: it runs on a worker, where its reads
// wait for what the loop hands over.
type tlsHandshake struct {
	// Immutable.
	conn   *Conn
	tls    *tls.Conn
	local  net.Addr
	ctx    context.Context // of the application's certificate callbacks
	cancel context.CancelFunc

	// Guarded by mu.
	mu      sync.Mutex
	arrived sync.Cond // on mu; the worker waits for it
	in      []byte    // received, not read yet
	out     []byte    // written, not sent yet
	posted  bool      // the handshake is in the shard's inbox
	closed  bool      // nothing more will come
	waits   bool      // the worker waits for the peer
	since   time.Duration
	ended   bool
	err     error // of a handshake that ended
}

// beginHandshake starts the handshake of c, whose ClientHello is in b.
func (s *Shard) beginHandshake(c *Conn, b []byte) {
	t := c.tls()
	t.conn = tls.Server(t, s.eng.cfg.TLS)
	h := &tlsHandshake{conn: c, tls: t.conn, local: c.gc.LocalAddr(), in: append([]byte(nil), b...)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.arrived.L = &h.mu
	t.handshake = h
	if !s.eng.handshakes.submit(h) {
		s.doom(c, ErrStopped)
	}
}

// Run is the handshake. It runs on a worker.
func (h *tlsHandshake) Run() {
	p := h.conn.shard.eng.handshakes
	p.started(h)
	err := errInternal // if it panics
	defer func() {
		p.ended(h)
		h.cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended, h.err = true, err
		h.postLocked()
	}()
	err = h.tls.HandshakeContext(h.ctx)
}

// read waits for bytes of the peer. The worker calls it.
func (h *tlsHandshake) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.in) == 0 {
		h.waits, h.since = true, h.conn.shard.eng.elapsed()
	}
	for len(h.in) == 0 && !h.closed {
		h.arrived.Wait()
	}
	h.waits = false
	if h.closed {
		return 0, net.ErrClosed
	}
	n := copy(p, h.in)
	h.in = h.in[n:]
	return n, nil
}

// write hands p, which is borrowed, to the loop. The worker calls it.
func (h *tlsHandshake) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, net.ErrClosed
	}
	h.out = append(h.out, p...)
	h.postLocked()
	return len(p), nil
}

// postLocked makes the loop look at the handshake. It never waits.
func (h *tlsHandshake) postLocked() {
	if !h.posted {
		h.posted = true
		h.conn.shard.postUrgent(h)
	}
}

// feed hands b, which is borrowed, to the worker. It returns how many bytes the
// worker has not read.
func (h *tlsHandshake) feed(b []byte) (unread int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.in = append(h.in, b...)
	h.arrived.Signal()
	return len(h.in)
}

// close makes the worker give up.
func (h *tlsHandshake) close() {
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.arrived.Signal()
}

// silentSince tells since when the worker waits for the peer, if it does.
func (h *tlsHandshake) silentSince() (since time.Duration, waits bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.waits && len(h.in) == 0
}

// take returns what is to be sent, and whether and how the handshake ended.
func (h *tlsHandshake) take() (out []byte, ended bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out, h.out, h.posted = h.out, nil, false
	return out, h.ended, h.err
}

// RunInLoop sends what the worker has written, and goes on with the connection
// when the handshake has ended.
func (h *tlsHandshake) RunInLoop(s *Shard) {
	c := h.conn
	out, ended, err := h.take()
	if c.state.Load() == stateClosed || c.is(doomed) || c.is(lingering) {
		return
	}
	t := c.tls()
	t.sealed = append(t.sealed, out...)
	if ended && err != nil {
		s.failTLS(c, err)
		return
	}
	s.pushSealed(c)
	if ended {
		t.handshake = nil
		s.unpause(c, pausedEarly)
		s.openTLS(c, h.in) // the worker has no more use for it
	}
}

// readHello looks for a whole ClientHello in b, and begins the handshake with
// it. Before that no worker is taken: a peer that sends half of one costs its
// socket until the handshake timeout. It reports whether b was used.
func (s *Shard) readHello(c *Conn, b []byte) (used bool) {
	whole, err := findHello(b)
	switch {
	case err != nil:
		s.eng.handler.OnReadError()
		s.logTLS(c, err)
		c.setTLS(nil) // it never spoke TLS
		s.refuse(c, answerToNoTLS(b))
		return true
	case whole:
		s.beginHandshake(c, b)
	}
	return whole
}

const (
	tlsHandshakeRecord = 22
	tlsRecordHeader    = 5
	tlsClientHello     = 1
	tlsMessageHeader   = 4
	// maxTLSRecord is what crypto/tls takes at most in an unprotected record,
	// with some room.
	maxTLSRecord = 1<<14 + 2048
)

// findHello reports whether b begins with a whole ClientHello, which may be cut
// into several records (RFC 8446 section 5.1). It returns an error if b is the
// beginning of something else. Once it has decided, more bytes change nothing.
func findHello(b []byte) (whole bool, err error) {
	whole, err = scanHello(b[:min(len(b), maxHelloBytes)])
	if !whole && err == nil && len(b) > maxHelloBytes {
		err = errHelloBytes
	}
	return whole, err
}

// scanHello is findHello for b within the limit.
func scanHello(b []byte) (whole bool, err error) {
	var head [tlsMessageHeader]byte
	for have, want := 0, tlsMessageHeader; len(b) > 0; {
		if b[0] != tlsHandshakeRecord || (len(b) > 1 && b[1] != 3) {
			return false, errNoTLS
		}
		if len(b) < tlsRecordHeader {
			return false, nil
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxTLSRecord {
			return false, errNoTLS
		}
		b = b[tlsRecordHeader:]
		fragment := b[:min(n, len(b))]
		if have < tlsMessageHeader {
			copy(head[have:], fragment)
		}
		have += len(fragment)
		if have > 0 && head[0] != tlsClientHello {
			return false, errNoTLS
		}
		if have >= tlsMessageHeader {
			want = tlsMessageHeader + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
		}
		if want > maxHelloBytes {
			return false, errHelloBytes
		}
		if have >= want {
			return len(fragment) == n, nil // crypto/tls waits for the whole record
		}
		b = b[len(fragment):]
	}
	return false, nil
}

// answerToNoTLS is what a peer reads that sent b instead of a ClientHello: a
// browser that was given http:// for https:// is told, like any other HTTP
// client, and others get the alert "unexpected message".
func answerToNoTLS(b []byte) []byte {
	if b[0] >= 'A' && b[0] <= 'Z' {
		return codec.AppendRefusal(nil, 400, "this port speaks TLS: use wss:// or https://", nil)
	}
	return []byte{21, 3, 1, 0, 2, 2, 10}
}

// logTLS tells why TLS has failed. That is the peer's doing mostly, and there
// may be many of them.
func (s *Shard) logTLS(c *Conn, err error) {
	s.eng.cfg.Logger.Debug("ws: TLS failed", slog.Any("error", err), slog.Any("remote", c.RemoteAddr()))
}
