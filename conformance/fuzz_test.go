package conformance_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// mutate turns fuzzer input into frames: most are good, so that the stream gets beyond its
// first, and some bits are flipped.
func mutate(b []byte, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var stream []byte
	open := false
	for len(b) > 0 {
		n := min(int(b[0])%80, len(b)-1)
		f := frame{op: []byte{opText, opBinary, opPing, opPong, opText, opBinary, opClose, 3}[b[0]>>5], payload: string(b[1 : 1+n])}
		b = b[1+n:]
		if f.op == opText && r.IntN(4) > 0 {
			f.payload = ascii(f.payload)
		}
		if f.op == opClose && r.IntN(2) == 0 {
			f.payload = string(binary.BigEndian.AppendUint16(nil, uint16(1000+r.IntN(20)))) + f.payload
		}
		if f.op < opClose {
			if open && r.IntN(16) > 0 {
				f.op = opCont
			}
			f.more = r.IntN(3) == 0
			open = f.more
		}
		switch r.IntN(40) {
		case 0:
			f.rsv = byte(r.IntN(8))
		case 1:
			f.bare = true
		case 2:
			f.lengthIn = 2 << (2 * r.IntN(2))
		case 3:
			f.announces = r.Uint64() >> r.IntN(64)
		}
		stream = append(stream, wire(f)...)
		if r.IntN(30) == 0 {
			stream[r.IntN(len(stream))] ^= 1 << r.IntN(8)
		}
	}
	return stream
}

// ascii clears the top bits.
func ascii(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] &= 0x7F
	}
	return string(b)
}

// FuzzConnection feeds bytes to a whole connection of one server: it closes with a legal code,
// or goes on to answer, and the connection leaves nothing behind.
func FuzzConnection(f *testing.F) {
	s := start(f, ws.WithMessageSizeLimit(4096))
	for i, sec := range sections() {
		for j, tc := range sec.cases {
			if j%37 == 0 && len(tc.send) < 600 {
				f.Add(tc.send, uint64(i+j))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), 8192)]
		if seed%2 == 1 {
			b = mutate(b, seed)
		}
		chop := []int{0, 0, 1, 7, 100}[seed/2%5]
		if chop == 1 && len(b) > 300 {
			chop = 50
		}
		way := bothWays[0]
		if seed%16 == 0 {
			way = overNet
		}
		c, _ := s.connect(t, way, "")
		written := make(chan struct{})
		go func() { // waited for below
			defer close(written)
			_ = c.write(b, chop) // the server may have hung up
			// The end of the stream ends a frame that is begun as well.
			if tcp, ok := c.Conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}()
		checkAnswers(t, c)
		<-written
		_ = c.Close()
		eventually(t, func() bool { return s.GetClientCount() == 0 && s.Stats().Total.Connections == 0 }, "the connection has ended")
		require.Empty(t, s.log.all())
		if seed%8 == 1 { // and others are served
			c, _ := s.connect(t, native, "")
			c.expectAlive()
		}
	})
}

// checkAnswers reads frames until the end, and demands that each is one that a server may send.
func checkAnswers(t *testing.T, c *client) {
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	for closed := false; ; {
		f, err := c.readFrame()
		if err == io.EOF { //nolint:errorlint // a frame cut short is io.ErrUnexpectedEOF
			return
		}
		require.NoError(t, err)
		require.False(t, closed, "%v behind a close frame", f)
		switch f.op {
		case opText:
			require.True(t, utf8.ValidString(f.payload), "%v", f)
		case opBinary, opPong:
		case opClose:
			closed = true
			if f.payload == "" {
				continue
			}
			require.GreaterOrEqual(t, len(f.payload), 2)
			code := binary.BigEndian.Uint16([]byte(f.payload))
			legal := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
			require.True(t, legal, "close code %d", code)
			require.True(t, utf8.ValidString(f.payload[2:]), "%v", f)
		default:
			require.Failf(t, "no frame of a server", "%v", f)
		}
	}
}
