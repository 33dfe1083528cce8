package engine

import (
	"errors"

	"github.com/qi-realtime/ws/codec"
)

// maxHelloBytes bounds a ClientHello with its record headers. Usual ones take
// 200 to 2,000 bytes.
const maxHelloBytes = 32 << 10

var (
	errNoTLS       = errors.New("ws: the peer does not speak TLS")
	errHelloBytes  = errors.New("ws: TLS ClientHello too large")
	errNoHandshake = errors.New("ws: TLS handshake not finished in time")
)

// readHello looks for a whole ClientHello in b and begins the handshake with
// it. A partial hello takes no worker: it costs a socket until the handshake
// timeout. readHello reports whether b was used.
func (t *tlsConn) readHello(c *Conn, b []byte) (used bool) {
	s := c.shard
	n, err := findHello(b)
	if n > 0 && len(b)-n > maxBehindHello {
		err = errBehindHello
	}
	switch {
	case err != nil:
		s.eng.observer.OnReadError()
		c.logTLS(err)
		c.setTLS(nil) // the peer never spoke TLS
		c.refuse(answerToNoTLS(b))
		return true
	case n > 0:
		t.beginHandshake(c, b, n)
	}
	return n > 0
}

const (
	tlsHandshakeRecord = 22
	tlsRecordHeader    = 5
	tlsClientHello     = 1
	tlsMessageHeader   = 4
	// maxTLSRecord is the largest unprotected record that crypto/tls accepts,
	// rounded up.
	maxTLSRecord = 1<<14 + 2048
)

// findHello returns the length of the ClientHello at the beginning of b, which
// may span several records (RFC 8446 section 5.1), or 0 if it is incomplete. It
// returns an error if b begins with anything else. Once it has decided, more
// bytes change nothing.
func findHello(b []byte) (n int, err error) {
	n, err = scanHello(b[:min(len(b), maxHelloBytes)])
	if n == 0 && err == nil && len(b) > maxHelloBytes {
		err = errHelloBytes
	}
	return n, err
}

// scanHello is findHello for b within maxHelloBytes.
func scanHello(b []byte) (length int, err error) {
	whole := len(b)
	var head [tlsMessageHeader]byte
	for have, want := 0, tlsMessageHeader; len(b) > 0; {
		if b[0] != tlsHandshakeRecord || (len(b) > 1 && b[1] != 3) {
			return 0, errNoTLS
		}
		if len(b) < tlsRecordHeader {
			return 0, nil
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxTLSRecord {
			return 0, errNoTLS
		}
		b = b[tlsRecordHeader:]
		fragment := b[:min(n, len(b))]
		if have < tlsMessageHeader {
			copy(head[have:], fragment)
		}
		have += len(fragment)
		if have > 0 && head[0] != tlsClientHello {
			return 0, errNoTLS
		}
		if have >= tlsMessageHeader {
			want = tlsMessageHeader + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
		}
		if want > maxHelloBytes {
			return 0, errHelloBytes
		}
		if have >= want {
			if len(fragment) < n {
				return 0, nil // crypto/tls waits for the whole record
			}
			return whole - len(b) + n, nil
		}
		b = b[len(fragment):]
	}
	return 0, nil
}

// alertUnexpectedMessage is the alert "unexpected message", for a peer that
// does not speak TLS.
const alertUnexpectedMessage = "\x15\x03\x01\x00\x02\x02\x0a"

// answerToNoTLS returns the answer to a peer that sent b instead of a
// ClientHello: an HTTP response for an HTTP client, such as a browser with
// http:// in place of https://, and the alert "unexpected message" for others.
func answerToNoTLS(b []byte) []byte {
	if b[0] >= 'A' && b[0] <= 'Z' {
		return codec.AppendRefusal(nil, 400, "this port speaks TLS: use wss:// or https://", nil)
	}
	return []byte(alertUnexpectedMessage)
}
