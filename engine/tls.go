package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"
	"time"
	"unsafe"

	"github.com/qi-realtime/ws/codec"
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

// expectTLS makes c speak TLS if the listener does.
func (c *Conn) expectTLS() {
	if c.shard.eng.cfg.TLSConfig != nil {
		c.setTLS(&tlsConn{owner: c})
	}
}

// earlyRefusal returns the response that refuses a connection before its
// handshakes, or nil if its peer speaks TLS and could not read it.
func (e *Engine) earlyRefusal(err *codec.RequestError) []byte {
	if e.cfg.TLSConfig != nil {
		return nil
	}
	return renderRefusal(err)
}

// errNothingReceived is the error of a Read without bytes. It is temporary, so
// crypto/tls does not take it as the end of the stream and continues with the
// next call.
var errNothingReceived net.Error = nothingReceivedError{}

type nothingReceivedError struct{}

func (nothingReceivedError) Error() string   { return "ws: nothing received" }
func (nothingReceivedError) Timeout() bool   { return true }
func (nothingReceivedError) Temporary() bool { return true }

// net/http hands over a TLS connection as a *tls.Conn. Its keys cannot be taken
// out, and it reads from and writes to the net.Conn below it. To move the
// connection to a loop without a goroutine, that net.Conn must be replaced by
// ours. crypto/tls offers no way to do so, and net/http offers none to wrap the
// connections of ListenAndServeTLS, so this file sets the field.
//
// The fields are looked up by name and type when the program starts. If a
// version of Go has other fields, CheckEnroll returns an error, HandleUpgrade
// refuses TLS connections, and the buffers stay as crypto/tls leaves them. The
// native path does not need these fields.

// tlsFields are the offsets of the needed fields of tls.Conn.
type tlsFields struct {
	conn, rawInput, input, hand uintptr
	known                       bool
}

// fields is immutable.
var fields = findTLSFields()

func findTLSFields() (f tlsFields) {
	f.known = findField[net.Conn](&f.conn, "conn") && findField[bytes.Buffer](&f.rawInput, "rawInput") &&
		findField[bytes.Reader](&f.input, "input") && findField[bytes.Buffer](&f.hand, "hand")
	return f
}

// findField sets offset to the offset of the named field, and reports whether
// tls.Conn has such a field of type T.
func findField[T any](offset *uintptr, name string) bool {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	*offset = f.Offset
	return ok && len(f.Index) == 1 && f.Type == reflect.TypeFor[T]()
}

// fieldOf returns the field at an offset that findField has set for T.
func fieldOf[T any](tc *tls.Conn, offset uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(tc), offset))
}

// CheckEnroll returns an error if Enroll cannot take nc.
func CheckEnroll(nc net.Conn) error {
	tc, ok := nc.(*tls.Conn)
	if ok {
		nc = tc.NetConn()
	}
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return fmt.Errorf("connection is a %T, not TCP or a Unix socket", nc)
	}
	switch {
	case !ok:
		return nil
	case !fields.known:
		return errors.New("TLS connections of this version of Go cannot be moved to an event loop")
	case !tc.ConnectionState().HandshakeComplete:
		return errors.New("TLS handshake not finished")
	}
	return nil
}

// adopt makes c the only user of tc, and returns the connection below tc.
// CheckEnroll has passed.
func (c *Conn) adopt(tc *tls.Conn) net.Conn {
	_ = tc.SetDeadline(time.Time{})
	below := tc.NetConn()
	c.setTLS(&tlsConn{owner: c, conn: tc})
	*fieldOf[net.Conn](tc, fields.conn) = c.tls()
	return below
}

// rawInput is the ciphertext buffer that the TLS connections of a shard use in
// turn. crypto/tls keeps such a buffer in each connection; it grows to the
// largest record received, usually 17 KB, and never shrinks.
//
// Loop-confined: use only on the event loop that owns the connections.
type rawInput struct{ buf bytes.Buffer }

// lend moves the buffer to tc, with the partial record of tc in front.
func (r *rawInput) lend(tc *tls.Conn) {
	if !fields.known {
		return
	}
	raw := fieldOf[bytes.Buffer](tc, fields.rawInput)
	if fieldOf[bytes.Reader](tc, fields.input).Len() > 0 {
		return // it refers to the buffer of tc
	}
	r.buf.Write(raw.Bytes())
	*raw, r.buf = r.buf, bytes.Buffer{}
}

// takeBack takes the buffer from tc, and leaves tc a copy of the partial
// record.
func (r *rawInput) takeBack(tc *tls.Conn) {
	if !fields.known {
		return
	}
	raw, input := fieldOf[bytes.Buffer](tc, fields.rawInput), fieldOf[bytes.Reader](tc, fields.input)
	if input.Len() > 0 {
		return
	}
	input.Reset(nil)
	r.buf, *raw = *raw, bytes.Buffer{}
	if r.buf.Len() > 0 {
		*raw = *bytes.NewBuffer(bytes.Clone(r.buf.Bytes()))
	}
	r.buf.Reset()
	if hand := fieldOf[bytes.Buffer](tc, fields.hand); hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}
