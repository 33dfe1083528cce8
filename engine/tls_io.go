package engine

import (
	"errors"
	"io"
	"net/http"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// tlsScratch holds a shard's buffers for TLS. They are in use only within one
// call, so an idle connection has none. The plaintext buffers are made with the
// first TLS connection.
type tlsScratch struct {
	opened []byte   // plaintext received
	joined []byte   // plaintext to seal
	spare  [][]byte // empty buffers for ciphertext; several are in use in a batch
	raw    rawInput
}

func (t *tlsConn) receive(c *Conn) {
	b, _ := c.gc.Peek(-1)
	switch {
	case c.is(lingering) || c.is(gotClose) || c.is(pendingClose): // inbound bytes have no effect any more
	case t.conn == nil:
		if !t.readHello(c, b) {
			return // the bytes stay in gnet's buffer
		}
	case t.handshake != nil:
		t.feedHandshake(c, b)
	default:
		t.open(c, b)
	}
	if c.state.Load() != stateClosed {
		_, _ = c.gc.Discard(-1)
	}
}

func (t *tlsConn) proceed(c *Conn) {
	if c.state.Load() != stateHandshake && len(t.request.b) > 0 {
		c.decode(t.request.take())
	}
	if t.ready() {
		t.open(c, nil) // the end of the stream may follow
	}
	plain{}.proceed(c)
}

func (t *tlsConn) describe(r *http.Request) {
	state := t.conn.ConnectionState()
	r.TLS = &state
}

func (t *tlsConn) readable() bool { return t.ready() }
func (t *tlsConn) queued() int    { return len(t.sealed) }
func (t *tlsConn) discard()       { t.sealed = nil }

func (t *tlsConn) end() {
	if t.handshake != nil {
		t.handshake.abandon()
	}
}

// open opens ciphertext, which is borrowed, and processes the plaintext.
func (t *tlsConn) open(c *Conn, ciphertext []byte) {
	s := c.shard
	t.received = ciphertext
	defer func() { t.received = nil }() // a handler may panic
	s.tls.raw.lend(t.conn)
	defer s.tls.raw.takeBack(t.conn)
	for more := true; more && !c.is(lingering|gotClose|pendingClose) && c.state.Load() != stateClosed; {
		n, err := t.fillOpened(&s.tls)
		if n > 0 {
			t.readPlaintext(c, s.tls.opened[:n])
		}
		switch {
		case err == nil:
			more = len(t.sealed) <= maxSealedBytes
			if !more {
				s.closeLater(c, errSealedBytes)
			}
		case errors.Is(err, errNothingReceived):
			more = false
		case s.holds(c) || c.is(pausedFlags):
			more = false // crypto/tls repeats the error when c is resumed
		case errors.Is(err, io.EOF):
			t.endOfStream(c)
		default:
			t.fail(c, err)
		}
	}
	if !c.is(pendingClose) {
		t.pushSealed(c) // the answer to a key update
	}
}

var errSealedBytes = errors.New("ws: the peer makes TLS answer and does not read")

// fillOpened opens as much plaintext as the shard's buffer takes.
func (t *tlsConn) fillOpened(scratch *tlsScratch) (n int, err error) {
	if scratch.opened == nil {
		scratch.opened = make([]byte, openBytes)
	}
	for n < len(scratch.opened) && err == nil && len(t.sealed) <= maxSealedBytes {
		var m int
		m, err = t.conn.Read(scratch.opened[n:])
		n += m
	}
	return n, err
}

// readPlaintext processes p, which is borrowed: a part of the upgrade request,
// or frames.
func (t *tlsConn) readPlaintext(c *Conn, p []byte) {
	if c.state.Load() == stateHandshake {
		in := &t.request
		in.b = append(in.b, p...)
		if !c.handshake(in) {
			return
		}
		p = in.take()
	}
	c.decode(p)
}

// endOfStream ends a connection behind the answers to its messages, because the
// peer has sent close_notify, the FIN of TLS.
func (t *tlsConn) endOfStream(c *Conn) {
	s := c.shard
	if c.state.Load() == stateOpen {
		c.endInOrder(CloseInfo{Code: codec.CloseAbnormal, Err: io.EOF})
		return
	}
	c.flush()
	s.closeLater(c, io.EOF)
}

// fail ends a connection whose TLS has failed. Queued frames cannot be
// sealed any more; crypto/tls has written an alert, and the peer gets some time
// to read it.
func (t *tlsConn) fail(c *Conn, err error) {
	s := c.shard
	s.eng.observer.OnReadError()
	c.logTLS(err)
	t.failed = true
	if c.end() == nil {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err})
	}
	if c.is(opened) {
		c.state.Store(stateClosing)
	}
	c.set(lingering)
	if c.out != nil {
		sealed := t.sealed
		c.discard(DropClosed)
		t.sealed = sealed
	}
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
	if len(t.sealed) == 0 && c.out == nil {
		c.sentAll()
		return
	}
	t.pushSealed(c)
}

// pushSealed sends ciphertext that no queued frame carries along.
func (t *tlsConn) pushSealed(c *Conn) {
	s := c.shard
	if len(t.sealed) == 0 && c.out == nil {
		return
	}
	if c.out == nil {
		c.out = s.free.get()
	}
	if c.is(blocked) {
		c.weighSealed()
		return
	}
	s.markDirty(c)
}

func (t *tlsConn) gather(c *Conn, iov []unix.Iovec, _ int) (_ []unix.Iovec, total int, err error) {
	if err := t.sealQueue(c); err != nil || len(t.sealed) == 0 {
		return nil, 0, err
	}
	return append(iov, iovec(t.sealed)), len(t.sealed), nil
}

func (t *tlsConn) sent(c *Conn, n int) {
	s := c.shard
	s.clock.work += writeWork + n
	switch rest := t.sealed[n:]; {
	case len(rest) == 0:
		s.tls.keep(t.sealed[:0])
		t.sealed = nil
	case cap(rest) > 2*len(rest):
		t.sealed = append([]byte(nil), rest...)
	default:
		t.sealed = rest
	}
}

func (t *tlsConn) writeRest(c *Conn) (done bool) {
	q, f := c.out, c.out.current
	full, err := t.writeSealed(c)
	for !full && err == nil && q.current == f {
		if err = t.sealQueue(c); err == nil {
			full, err = t.writeSealed(c)
		}
	}
	return !full && err == nil && q.empty()
}

// sealQueue seals the next plaintext of c's queue, unless sealed bytes wait. A
// batch of small frames becomes one record.
func (t *tlsConn) sealQueue(c *Conn) error {
	s := c.shard
	if !t.ready() || len(t.sealed) > maxSealBytes/16 {
		return nil
	}
	iov, _ := c.out.gather(s.iov[:0], maxSealBytes)
	p := s.tls.join(iov)
	clear(iov)
	if len(p) == 0 {
		return nil
	}
	if err := t.seal(c, p); err != nil {
		return err
	}
	c.sent(c.out.advance(len(p)))
	return nil
}

// buffer returns an empty buffer for ciphertext, or nil.
func (scratch *tlsScratch) buffer() (b []byte) {
	if last := len(scratch.spare) - 1; last >= 0 {
		b, scratch.spare = scratch.spare[last], scratch.spare[:last]
	}
	return b
}

// keep takes a buffer back: one that is large, and as many as a batch needs.
func (scratch *tlsScratch) keep(b []byte) {
	largest := 2 * maxEntryBytes
	if len(scratch.spare) == 0 {
		largest = maxScratchBytes
	}
	if cap(b) <= largest && len(scratch.spare) < maxBatch {
		scratch.spare = append(scratch.spare, b)
	}
}

// join returns the first bytes that iov describes in one piece, borrowed.
func (scratch *tlsScratch) join(iov []unix.Iovec) []byte {
	if len(iov) == 1 {
		return unsafe.Slice(iov[0].Base, min(int(iov[0].Len), maxSealBytes))
	}
	p := scratch.joined[:0]
	for _, v := range iov {
		p = append(p, unsafe.Slice(v.Base, min(int(v.Len), maxSealBytes-len(p)))...)
	}
	scratch.joined = p
	return p
}

// seal seals p, which is borrowed, into the ciphertext of c.
func (t *tlsConn) seal(c *Conn, p []byte) error {
	s := c.shard
	if t.sealed == nil {
		t.sealed = s.tls.buffer()
	}
	s.clock.work += len(p)
	_, err := t.conn.Write(p)
	s.stats.bytesOut.add(uint64(len(p)))
	return err
}

// writeSealed writes the ciphertext in one system call, and reports whether the
// socket is full.
func (t *tlsConn) writeSealed(c *Conn) (full bool, err error) {
	s := c.shard
	if len(t.sealed) == 0 {
		return false, nil
	}
	n, err := s.driver.write(c, t.sealed)
	s.stats.writes.add(1)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	t.sent(c, max(n, 0))
	return len(t.sealed) > 0, nil
}

func (t *tlsConn) writeNow(c *Conn, b []byte) (n int, full bool, err error) {
	for n < len(b) && !full && err == nil {
		p := b[n:min(len(b), n+maxSealBytes)]
		if err = t.seal(c, p); err == nil {
			n += len(p)
			full, err = t.writeSealed(c)
		}
	}
	return n, full, err
}

// closeNotify sends close_notify, if TLS still can; a FIN follows on the
// socket. Nothing is sealed after it.
func (t *tlsConn) closeNotify(c *Conn) {
	if !t.ready() || t.failed || len(t.sealed) > 0 {
		return
	}
	t.failed = true
	if t.conn.CloseWrite() == nil {
		_, _ = t.writeSealed(c)
	}
	t.sealed = nil
}
