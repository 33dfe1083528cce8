package engine

import (
	"crypto/tls"
	"net"
	"time"
)

const (
	// maxSealBytes is the plaintext that is sealed at once, before a write.
	// Sealed bytes can neither be dropped nor overtaken, so this bounds the
	// ciphertext of a blocked connection.
	maxSealBytes = 32 << 10
	// maxSealedBytes bounds the output of crypto/tls itself, such as the
	// answers to key updates, to a peer that does not read.
	maxSealedBytes = 4 * maxSealBytes
	// openBytes is the plaintext that is opened at once, before it is decoded.
	openBytes = 64 << 10
	// maxScratchBytes bounds the ciphertext buffer that a shard keeps.
	maxScratchBytes = 4 * maxSealBytes
)

// tlsConn is the TLS part of a connection. It is also the net.Conn below
// crypto/tls: Read returns the bytes that the loop has received, and Write
// collects bytes for the loop to send. Neither waits, except during the
// handshake, which runs on a worker.
//
// It has three phases: conn is nil until a whole ClientHello has come;
// handshake is not nil from then until the handshake has succeeded.
//
// Loop-confined: use only on the event loop that owns the connection.
type tlsConn struct {
	owner     *Conn
	conn      *tls.Conn
	handshake *tlsHandshake
	received  []byte    // ciphertext of the current read that crypto/tls has not taken; borrowed
	sealed    []byte    // ciphertext that waits for the socket
	request   plaintext // the upgrade request and the bytes behind it, until the request is answered
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

// Close does nothing. crypto/tls calls it only if the handshake's context ends,
// and the handshake has closed itself by then.
func (t *tlsConn) Close() error { return nil }

// LocalAddr returns the local address of the connection.
func (t *tlsConn) LocalAddr() net.Addr {
	if t.handshake != nil {
		return t.handshake.local
	}
	return t.owner.gc.LocalAddr()
}

// RemoteAddr returns the peer's address.
func (t *tlsConn) RemoteAddr() net.Addr { return t.owner.RemoteAddr() }

// SetDeadline does nothing, because the timer wheel keeps the deadlines.
func (t *tlsConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (t *tlsConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (t *tlsConn) SetWriteDeadline(time.Time) error { return nil }

// errNothingReceived is the error of a Read without bytes. It is temporary, so
// crypto/tls does not take it as the end of the stream and continues with the
// next call.
var errNothingReceived net.Error = nothingReceivedError{}

type nothingReceivedError struct{}

func (nothingReceivedError) Error() string   { return "ws: nothing received" }
func (nothingReceivedError) Timeout() bool   { return true }
func (nothingReceivedError) Temporary() bool { return true }

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
