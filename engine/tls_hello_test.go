package engine_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// records cuts a handshake message into records of size bytes.
func records(message []byte, size int) []byte {
	var b []byte
	for len(message) > 0 {
		n := min(size, len(message))
		b = append(binary.BigEndian.AppendUint16(append(b, 22, 3, 1), uint16(n)), message[:n]...)
		message = message[n:]
	}
	return b
}

// FuzzHello asserts that the decision on the first bytes of a connection is the
// same for every cut, does not change later, needs no more bytes than the
// limit, and finds the ClientHello where crypto/tls does. The input is b and
// zeros, in records of size bytes unless that is 0, and cut behind at bytes.
func FuzzHello(f *testing.F) {
	hello := clientHello(f)
	message := hello[5:]
	f.Add([]byte(hello), uint16(0), uint16(0), uint16(1))
	f.Add([]byte(hello[:len(hello)/2]), uint16(0), uint16(0), uint16(6))
	f.Add([]byte(hello+"\x14\x03\x03\x00\x01\x01"), uint16(0), uint16(0), uint16(len(hello)))
	f.Add([]byte(hello), uint16(engine.MaxHelloBytes), uint16(0), uint16(len(hello)))
	f.Add([]byte(message), uint16(1), uint16(1<<14), uint16(len(hello)))
	for _, size := range []int{1, 3, 4, 5, 100, len(message) - 1} {
		f.Add([]byte(message), uint16(0), uint16(size), uint16(size))
	}
	const most = engine.MaxHelloBytes - 3*5 // in three records
	for _, n := range []int{most, most + 1, engine.MaxHelloBytes, engine.MaxHelloBytes + 1} {
		f.Add(binary.BigEndian.AppendUint32(nil, 1<<24|uint32(n-4)), uint16(n-4), uint16(1<<14), uint16(1<<14))
	}
	f.Add([]byte("\x01\x00\x20\x00"), uint16(0x2000), uint16(1), uint16(engine.MaxHelloBytes))
	for _, s := range []string{
		"", upgradeRequest, "\x80\x2e\x01\x00\x02", "\x16\x02\x01", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff",
		"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "\x16\x03\x01\x00\x04\x01\xff\xff\xff",
		"\x16\x03\x01\x00\x01\x01\x17\x03\x01\x00\x01a",
		"\x15\x03\x01\x00\x02\x01\x00" + hello,
	} {
		f.Add([]byte(s), uint16(0), uint16(0), uint16(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, zeros, size, at uint16) {
		b = append(bytes.Clone(b), make([]byte, zeros)...)
		if size > 0 {
			b = records(b[:min(len(b), engine.MaxHelloBytes+1)], int(size))
		}
		whole, err := engine.FindHello(b)
		require.False(t, whole && err != nil)
		require.True(t, whole || err != nil || len(b) <= engine.MaxHelloBytes, "it waits for more than the limit")
		for _, n := range []int{0, 1, 2, 5, 6, 9, int(at) - 1, int(at), int(at) + 1, len(b) / 2, len(b) - 1} {
			if n >= 0 && n < len(b) {
				requireSameVerdict(t, b[:n:n], whole, err)
			}
		}
		found, wantsMore := findsHello(b)
		require.False(t, whole && wantsMore, "crypto/tls waits for the rest of it, on a worker")
		require.False(t, found && !whole && err == nil, "it waits, and has a whole one")
	})
}

// requireSameVerdict asserts that FindHello waits for more than b, the first bytes of a
// connection, or decides as it does on all of them.
func requireSameVerdict(t *testing.T, b []byte, whole bool, wholeErr error) {
	t.Helper()
	if found, err := engine.FindHello(b); found || err != nil {
		require.Equal(t, whole, found, "the verdict on %d bytes", len(b))
		require.Equal(t, wholeErr, err, "the verdict on %d bytes", len(b))
	}
}

// findsHello reports whether crypto/tls, as a server, finds a ClientHello in b,
// and whether it wants more bytes instead.
func findsHello(b []byte) (found, wantsMore bool) {
	err := tls.Server(&prefix{b: b}, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		found = true
		return nil, errEnough
	}}).Handshake()
	return found, errors.Is(err, errPrefixEnds)
}

var (
	errEnough     = errors.New("enough")
	errPrefixEnds = errors.New("the prefix ends")
)

// prefix is a connection that has received some bytes and receives no more.
type prefix struct {
	net.Conn
	b []byte
}

func (p *prefix) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, errPrefixEnds
	}
	n := copy(b, p.b)
	p.b = p.b[n:]
	return n, nil
}

func (p *prefix) Write(b []byte) (int, error) { return len(b), nil }
