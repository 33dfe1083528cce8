package engine

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// tlsScratch holds a shard's buffers for TLS. They are in use only within one
// call, so an idle connection has none. The plaintext buffers are made with the
// first TLS connection.
type tlsScratch struct {
	opened []byte // plaintext received
	joined []byte // plaintext to seal
	sealed []byte // ciphertext to send
	raw    rawInput
}

// readTLS is readInLoop for a connection that speaks TLS.
func (s *Shard) readTLS(c *Conn) {
	b, _ := c.gc.Peek(-1)
	switch t := c.tls(); {
	case c.is(lingering) || c.is(gotClose) || c.is(pendingClose): // inbound bytes have no effect any more
	case t.conn == nil:
		if !s.readHello(c, b) {
			return // the bytes stay in gnet's buffer
		}
	case t.handshake != nil:
		s.feedHandshake(c, b)
	default:
		s.openTLS(c, b)
	}
	if c.state.Load() != stateClosed {
		_, _ = c.gc.Discard(-1)
	}
}

// openTLS opens ciphertext, which is borrowed, and processes the plaintext.
func (s *Shard) openTLS(c *Conn, ciphertext []byte) {
	t := c.tls()
	t.received = ciphertext
	defer func() { t.received = nil }() // a handler may panic
	s.tls.raw.lend(t.conn)
	defer s.tls.raw.takeBack(t.conn)
	for more := true; more && !c.is(lingering) && !c.is(gotClose) && !c.is(pendingClose) && c.state.Load() != stateClosed; {
		n, err := s.fillOpened(t)
		if n > 0 {
			s.readPlaintext(c, s.tls.opened[:n])
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
			s.endOfTLS(c)
		default:
			s.failTLS(c, err)
		}
	}
	if !c.is(pendingClose) {
		s.pushSealed(c) // the answer to a key update
	}
}

var errSealedBytes = errors.New("ws: the peer makes TLS answer and does not read")

// fillOpened opens as much plaintext as the shard's buffer takes.
func (s *Shard) fillOpened(t *tlsConn) (n int, err error) {
	if s.tls.opened == nil {
		s.tls.opened = make([]byte, openBytes)
	}
	for n < len(s.tls.opened) && err == nil && len(t.sealed) <= maxSealedBytes {
		var m int
		m, err = t.conn.Read(s.tls.opened[n:])
		n += m
	}
	return n, err
}

// readPlaintext processes p, which is borrowed: a part of the upgrade request,
// or frames.
func (s *Shard) readPlaintext(c *Conn, p []byte) {
	if c.state.Load() == stateHandshake {
		in := &c.tls().request
		in.b = append(in.b, p...)
		if !s.handshake(c, in) {
			return
		}
		p = in.take()
	}
	s.decode(c, p)
}

// endOfTLS ends a connection behind the answers to its messages, because the
// peer has sent close_notify, the FIN of TLS.
func (s *Shard) endOfTLS(c *Conn) {
	if c.state.Load() == stateOpen {
		s.endInOrder(c, CloseInfo{Code: codec.CloseAbnormal, Err: io.EOF})
		return
	}
	s.flush(c)
	s.closeLater(c, io.EOF)
}

// failTLS ends a connection whose TLS has failed. Queued frames cannot be
// sealed any more; crypto/tls has written an alert, and the peer gets some time
// to read it.
func (s *Shard) failTLS(c *Conn, err error) {
	s.eng.observer.OnReadError()
	s.logTLS(c, err)
	t := c.tls()
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
		s.discard(c, DropClosed)
		t.sealed = sealed
	}
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
	if len(t.sealed) == 0 && c.out == nil {
		s.sentAll(c)
		return
	}
	s.pushSealed(c)
}

// pushSealed sends ciphertext that no queued frame carries along.
func (s *Shard) pushSealed(c *Conn) {
	if len(c.tls().sealed) == 0 && c.out == nil {
		return
	}
	if c.out == nil {
		c.out = s.free.get()
	}
	if c.is(blocked) {
		s.weighSealed(c)
		return
	}
	s.markDirty(c)
}

// weighSealed adds the waiting ciphertext to the memory of c's queue.
func (s *Shard) weighSealed(c *Conn) {
	growth := len(c.tls().sealed) - c.out.sealed
	c.out.sealed += growth
	c.out.cost += growth
	if c.is(blocked) {
		s.reweigh(c, growth)
	}
}

// flushTLS is flush for a connection that speaks TLS.
func (s *Shard) flushTLS(c *Conn, most int) {
	for c.out != nil && !c.is(blocked) && !c.is(pendingClose) && c.state.Load() != stateClosed {
		s.purge(c)
		s.commit(c)
		before := s.clock.work
		err := s.sealQueue(c)
		var full bool
		if err == nil {
			full, err = s.writeSealed(c)
		}
		most -= s.clock.work - before
		switch {
		case err != nil:
			s.closeLater(c, err)
			s.eng.observer.OnWriteError()
		case full:
			if !s.sendRest(c) {
				s.block(c)
			}
		case c.out.empty():
			s.flushed(c)
		case most <= 0:
			s.markDirty(c)
			return
		}
	}
}

// sendRestTLS is sendRest for a connection that speaks TLS.
func (s *Shard) sendRestTLS(c *Conn) (done bool) {
	q, f := c.out, c.out.current
	full, err := s.writeSealed(c)
	for !full && err == nil && q.current == f {
		if err = s.sealQueue(c); err == nil {
			full, err = s.writeSealed(c)
		}
	}
	return !full && err == nil && q.empty()
}

// sealQueue seals the next plaintext of c's queue, unless sealed bytes wait. A
// batch of small frames becomes one record.
func (s *Shard) sealQueue(c *Conn) error {
	if !c.tls().ready() || len(c.tls().sealed) > maxSealBytes/16 {
		return nil
	}
	iov, _ := c.out.gather(s.iov[:0], maxSealBytes)
	p := s.join(iov)
	clear(iov)
	if len(p) == 0 {
		return nil
	}
	if err := s.seal(c, p); err != nil {
		return err
	}
	s.sent(c, c.out.advance(len(p)))
	return nil
}

// join returns the first bytes that iov describes in one piece, borrowed.
func (s *Shard) join(iov []unix.Iovec) []byte {
	if len(iov) == 1 {
		return unsafe.Slice(iov[0].Base, min(int(iov[0].Len), maxSealBytes))
	}
	p := s.tls.joined[:0]
	for _, v := range iov {
		p = append(p, unsafe.Slice(v.Base, min(int(v.Len), maxSealBytes-len(p)))...)
	}
	s.tls.joined = p
	return p
}

// seal seals p, which is borrowed, into the ciphertext of c.
func (s *Shard) seal(c *Conn, p []byte) error {
	if c.tls().sealed == nil {
		c.tls().sealed, s.tls.sealed = s.tls.sealed, nil
	}
	s.clock.work += len(p)
	_, err := c.tls().conn.Write(p)
	s.stats.bytesOut.add(uint64(len(p)))
	return err
}

// writeSealed writes the ciphertext in one system call, and reports whether the
// socket is full.
func (s *Shard) writeSealed(c *Conn) (full bool, err error) {
	t := c.tls()
	if len(t.sealed) == 0 {
		return false, nil
	}
	n, err := s.write(c, t.sealed)
	s.stats.writes.add(1)
	s.clock.work += writeWork + max(n, 0)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	switch rest := t.sealed[max(n, 0):]; {
	case len(rest) == 0:
		if cap(t.sealed) > cap(s.tls.sealed) && cap(t.sealed) <= maxScratchBytes {
			s.tls.sealed = t.sealed[:0]
		}
		t.sealed = nil
		return false, nil
	case cap(rest) > 2*len(rest):
		t.sealed = append([]byte(nil), rest...)
	default:
		t.sealed = rest
	}
	return true, nil
}

// writeNow writes as much of b as the socket takes. It returns the number of
// bytes and whether the socket is full. c has no queued frames.
func (s *Shard) writeNow(c *Conn, b []byte) (n int, full bool, err error) {
	if c.tls() == nil {
		n, err = s.write(c, b)
		s.stats.writes.add(1)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			err = nil
		}
		n = max(n, 0)
		s.stats.bytesOut.add(uint64(n))
		return n, n < len(b), err
	}
	for n < len(b) && !full && err == nil {
		p := b[n:min(len(b), n+maxSealBytes)]
		if err = s.seal(c, p); err == nil {
			n += len(p)
			full, err = s.writeSealed(c)
		}
	}
	return n, full, err
}

// closeNotify sends close_notify, if TLS still can; a FIN follows on the
// socket. Nothing is sealed after it.
func (s *Shard) closeNotify(c *Conn) {
	t := c.tls()
	if t == nil || !t.ready() || t.failed || len(t.sealed) > 0 {
		return
	}
	t.failed = true
	if t.conn.CloseWrite() == nil {
		_, _ = s.writeSealed(c)
	}
	t.sealed = nil
}
