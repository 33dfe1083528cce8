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

// A connection that net/http accepted with TLS comes as a *tls.Conn, whose keys
// cannot be taken out, and which reads from and writes to the net.Conn that it
// was made with. To move it to a loop without a goroutine, that net.Conn must
// become ours. crypto/tls has no way to do so, and neither has net/http to wrap
// the connections of ListenAndServeTLS; so the field is set from here. The
// fields are looked up by name and type when the program starts: should a
// version of Go have others, HandleUpgrade refuses TLS connections, as
// CheckEnroll tells, and the buffers stay as crypto/tls leaves them. The native
// path needs none of it.

// tlsFields are the offsets of the fields of tls.Conn that are needed.
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

// findField sets the offset of the field of that name, if tls.Conn has one of
// type T.
func findField[T any](offset *uintptr, name string) bool {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	*offset = f.Offset
	return ok && len(f.Index) == 1 && f.Type == reflect.TypeFor[T]()
}

// fieldOf returns the field at an offset that findField has found for T.
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

// adopt makes c the owner of the TLS state in tc, which nobody else may use any
// more, and returns the connection below it. CheckEnroll has passed.
func (c *Conn) adopt(tc *tls.Conn) net.Conn {
	_ = tc.SetDeadline(time.Time{})
	below := tc.NetConn()
	c.setTLS(&tlsConn{owner: c, conn: tc})
	*fieldOf[net.Conn](tc, fields.conn) = c.tls()
	return below
}

// rawInput is the buffer for ciphertext that a shard's TLS connections use in
// turn. crypto/tls keeps one in each connection, which grows to the largest
// record received, 17 KB for most, and never shrinks.
//
// Loop-confined: use only on the event loop that owns the connections.
type rawInput struct{ buf bytes.Buffer }

// lend gives tc the buffer, with the part of a record that tc has.
func (r *rawInput) lend(tc *tls.Conn) {
	if !fields.known {
		return
	}
	raw := fieldOf[bytes.Buffer](tc, fields.rawInput)
	if fieldOf[bytes.Reader](tc, fields.input).Len() > 0 {
		return // refers to the buffer that tc has
	}
	r.buf.Write(raw.Bytes())
	*raw, r.buf = r.buf, bytes.Buffer{}
}

// takeBack takes the buffer from tc, and leaves it the part of a record that
// has come.
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
