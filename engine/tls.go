package engine

import (
	"crypto/tls"
	"net"
	"time"
)

const (
	// maxSealBytes is how much plaintext is sealed before it is written. What
	// is sealed cannot be dropped or overtaken any more, so a connection whose
	// socket is full holds that much ciphertext at most.
	maxSealBytes = 32 << 10
	// maxSealedBytes bounds what crypto/tls itself may have to say, such as the
	// answers to key updates, to a peer that reads nothing.
	maxSealedBytes = 4 * maxSealBytes
	// openBytes is how much plaintext is opened before it is decoded.
	openBytes = 64 << 10
	// maxScratchBytes bounds the ciphertext buffer that a shard keeps.
	maxScratchBytes = 4 * maxSealBytes
)

// tlsConn is what a connection has besides if it speaks TLS. It is also the
// network as crypto/tls sees it: Read answers from what the loop has received,
// and Write collects what the loop is to send; neither waits, except while the
// handshake runs, on a worker.
//
// It has three phases: conn is nil until a whole ClientHello has come;
// handshake is not, until the handshake has succeeded.
//
// Loop-confined: use only on the event loop that owns the connection.
type tlsConn struct {
	owner     *Conn
	conn      *tls.Conn
	handshake *tlsHandshake
	received  []byte    // ciphertext of the read being processed, not taken yet; borrowed
	sealed    []byte    // ciphertext that waits for the socket
	request   plaintext // of the upgrade request and what follows it, until that is answered
	failed    bool      // crypto/tls has sent its last alert
}

// ready reports whether plaintext can be sealed and opened.
func (t *tlsConn) ready() bool { return t.conn != nil && t.handshake == nil }

// Read implements net.Conn for crypto/tls.
func (t *tlsConn) Read(p []byte) (int, error) {
	if t.handshake != nil {
		return t.handshake.read(p)
	}
	if len(t.received) == 0 {
		return 0, errNothingReceived
	}
	n := copy(p, t.received)
	t.received = t.received[n:]
	return n, nil
}

// Write implements net.Conn for crypto/tls.
func (t *tlsConn) Write(p []byte) (int, error) {
	if t.handshake != nil {
		return t.handshake.write(p)
	}
	t.sealed = append(t.sealed, p...)
	return len(p), nil
}

// Close does nothing: crypto/tls calls it if the handshake's context ends,
// which only the handshake itself, by then closed, can cause.
func (t *tlsConn) Close() error { return nil }

// LocalAddr returns the address that was connected to.
func (t *tlsConn) LocalAddr() net.Addr {
	if t.handshake != nil {
		return t.handshake.local
	}
	return t.owner.gc.LocalAddr()
}

// RemoteAddr returns the peer's address.
func (t *tlsConn) RemoteAddr() net.Addr { return t.owner.RemoteAddr() }

// SetDeadline does nothing: deadlines are the wheel's.
func (t *tlsConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (t *tlsConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (t *tlsConn) SetWriteDeadline(time.Time) error { return nil }

// errNothingReceived is what Read says when it has nothing. crypto/tls takes an
// error that is temporary as no end of the stream, and goes on where it was.
var errNothingReceived net.Error = nothingReceivedError{}

type nothingReceivedError struct{}

func (nothingReceivedError) Error() string   { return "ws: nothing received" }
func (nothingReceivedError) Timeout() bool   { return true }
func (nothingReceivedError) Temporary() bool { return true }

// unread is what a connection has received and not processed: gnet's buffer,
// or plaintext.
type unread interface {
	// Peek returns it, borrowed, for a negative n.
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

// take returns all of it and forgets it.
func (p *plaintext) take() []byte {
	b := p.b
	p.b = nil
	return b
}
