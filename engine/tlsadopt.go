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
)

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
