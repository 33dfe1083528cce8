package engine

import (
	"errors"
	"net/http"

	"golang.org/x/sys/unix"
)

// transport carries the bytes of a connection between its socket and its
// frames: plain, or a tlsConn.
//
// Loop-confined: use only on the event loop that owns the connection.
type transport interface {
	// receive processes the bytes that the socket has brought.
	receive(c *Conn)
	// proceed processes the bytes that were received before c was opened or
	// resumed.
	proceed(c *Conn)
	// describe adds the state of the transport to an upgrade request.
	describe(r *http.Request)
	// readable reports whether the peer can read an answer.
	readable() bool
	// gather appends to iov the bytes that c's queue has for the socket: up to
	// the capacity of iov and about maxBytes. They stay in place until sent.
	gather(c *Conn, iov []unix.Iovec, maxBytes int) (_ []unix.Iovec, total int, err error)
	// sent removes the n bytes that the socket has taken from those that gather
	// returned.
	sent(c *Conn, n int)
	// writeRest writes the rest of a partly sent frame; see Conn.sendRest.
	writeRest(c *Conn) (done bool)
	// writeNow writes as much of b, which is borrowed, as the socket takes. It
	// returns the number of bytes and whether the socket is full. c has no
	// queued frames.
	writeNow(c *Conn, b []byte) (n int, full bool, err error)
	// queued returns the number of bytes that wait here for the socket.
	queued() int
	// discard drops these bytes.
	discard()
	// closeNotify sends the end of the stream, ahead of the FIN.
	closeNotify(c *Conn)
	// end releases the transport of a connection that has ended.
	end()
}

// transport returns the transport of c. Plain connections share one value, so
// they need no memory for it.
func (c *Conn) transport() transport {
	if t := c.tls(); t != nil {
		return t
	}
	return plain{}
}

// plain is the transport without TLS: the bytes of the frames are those of the
// socket. Immutable.
type plain struct{}

func (plain) receive(c *Conn) {
	if c.state.Load() == stateHandshake && !c.handshake(c.gc) {
		return // the bytes stay in gnet's buffer
	}
	b, _ := c.gc.Peek(-1)
	c.decode(b)
	if c.state.Load() != stateClosed {
		_, _ = c.gc.Discard(-1)
	}
}

func (plain) proceed(c *Conn) {
	if c.state.Load() != stateClosed && c.gc.InboundBuffered() > 0 {
		c.readInLoop()
	}
}

func (plain) gather(c *Conn, iov []unix.Iovec, maxBytes int) (_ []unix.Iovec, total int, err error) {
	iov, total = c.out.gather(iov, maxBytes)
	return iov, total, nil
}

func (plain) sent(c *Conn, n int) { c.noteWritten(n) }

func (plain) writeRest(c *Conn) (done bool) {
	s, q := c.shard, c.out
	n, _ := s.driver.write(c, q.current.data[q.sent:]) // a failed connection becomes writable, and the next write fails
	s.stats.writes.add(1)
	c.noteWritten(n)
	return q.empty()
}

func (plain) writeNow(c *Conn, b []byte) (n int, full bool, err error) {
	s := c.shard
	n, err = s.driver.write(c, b)
	s.stats.writes.add(1)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		err = nil
	}
	n = max(n, 0)
	s.stats.bytesOut.add(uint64(n))
	return n, n < len(b), err
}

func (plain) describe(*http.Request) {}
func (plain) readable() bool         { return true }
func (plain) queued() int            { return 0 }
func (plain) discard()               {}
func (plain) closeNotify(*Conn)      {}
func (plain) end()                   {}

// unread is a source of received bytes that are not processed: gnet's buffer,
// or plaintext.
type unread interface {
	// Peek returns all bytes, borrowed, for a negative n.
	Peek(n int) ([]byte, error)
	// Discard forgets the first n bytes, or all for a negative n.
	Discard(n int) (int, error)
	InboundBuffered() int
}

// plaintext is unread plaintext.
type plaintext struct{ b []byte }

func (p *plaintext) Peek(int) ([]byte, error) { return p.b, nil }

func (p *plaintext) Discard(n int) (int, error) {
	if n < 0 || n >= len(p.b) {
		n, p.b = len(p.b), nil
	} else {
		p.b = p.b[n:]
	}
	return n, nil
}

func (p *plaintext) InboundBuffered() int { return len(p.b) }

// take returns all bytes and empties p.
func (p *plaintext) take() []byte {
	b := p.b
	p.b = nil
	return b
}
