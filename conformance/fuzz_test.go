package conformance_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// fuzzOffers holds the offers of fuzzed connections: none, and compression without context
// takeover, with it, and with it by the server alone in the smallest window.
var fuzzOffers = []string{
	"",
	"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
	"permessage-deflate",
	"permessage-deflate; server_max_window_bits=8; client_no_context_takeover",
}

// mutator turns fuzzer input into frames. Most frames are valid, so that the stream gets beyond
// the first, and some bits are flipped.
type mutator struct {
	*rand.Rand
	z      *compressor // nil if the connection is not compressed
	forget bool        // no context takeover by the client

	stream []byte
	open   bool // within a message
}

func mutate(b []byte, seed uint64, offer string) []byte {
	m := mutator{Rand: rand.New(rand.NewPCG(seed, 1)), forget: strings.Contains(offer, "client_no")}
	if offer != "" {
		m.z = new(compressor)
	}
	for len(b) > 0 {
		n := min(int(b[0])%80, len(b)-1)
		op := []byte{opText, opBinary, opPing, opPong, opText, opBinary, opClose, 3}[b[0]>>5]
		if payload := string(b[1 : 1+n]); m.z != nil && op <= opBinary && !m.open && m.IntN(4) > 0 {
			m.compressed(op, payload)
		} else {
			m.frame(op, payload)
		}
		b = b[1+n:]
		if m.IntN(30) == 0 {
			m.stream[m.IntN(len(m.stream))] ^= 1 << m.IntN(8)
		}
	}
	return m.stream
}

// frame sends one frame that is not compressed.
func (m *mutator) frame(op byte, payload string) {
	f := frame{op: op, payload: payload}
	if f.op == opText && m.IntN(4) > 0 {
		f.payload = ascii(f.payload)
	}
	if f.op == opClose && m.IntN(2) == 0 {
		f.payload = string(binary.BigEndian.AppendUint16(nil, uint16(1000+m.IntN(20)))) + f.payload
	}
	if f.op < opClose {
		if m.open && m.IntN(16) > 0 {
			f.op = opCont
		}
		f.more = m.IntN(3) == 0
		m.open = f.more
	}
	switch m.IntN(40) {
	case 0:
		f.rsv = byte(m.IntN(8))
	case 1:
		f.bare = true
	case 2:
		f.lengthIn = 2 << (2 * m.IntN(2))
	case 3:
		f.announces = m.Uint64() >> m.IntN(64)
	}
	m.stream = append(m.stream, wire(f)...)
}

// compressed sends one whole message compressed, some in fragments, with a ping between them.
func (m *mutator) compressed(op byte, payload string) {
	if m.forget {
		m.z = new(compressor)
	}
	if op == opText && m.IntN(8) > 0 {
		payload = ascii(payload)
	}
	payload = strings.Repeat(payload, 1+m.IntN(8)*m.IntN(8))
	z := m.z.message(payload)
	switch m.IntN(40) {
	case 0: // cut short
		z = z[:m.IntN(len(z)+1)]
	case 1: // changed after the compression
		if len(z) > 0 {
			damaged := []byte(z)
			damaged[m.IntN(len(z))] ^= 1 << m.IntN(8)
			z = string(damaged)
		}
	case 2: // beyond the limit of a message
		z = deflate(strings.Repeat("\x00", 1<<m.IntN(18)))
	case 3:
		z += payload
	}
	frames := fragments(op, z, 1+m.IntN(len(z)+1))
	frames[0].rsv = 4
	if m.IntN(20) == 0 {
		frames[m.IntN(len(frames))].rsv = byte(m.IntN(8))
	}
	if m.IntN(2) == 0 {
		frames = slices.Insert(frames, 1, ping(payload[:min(len(payload), 125)]))
	}
	m.stream = append(m.stream, wire(frames...)...)
}

// ascii clears the top bits.
func ascii(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] &= 0x7F
	}
	return string(b)
}

// FuzzConnection feeds bytes to a connection, plain or compressed. The server closes with a legal
// code or goes on to answer, and the connection leaves nothing behind.
func FuzzConnection(f *testing.F) {
	s := start(f, ws.WithMessageSizeLimit(4096), compressing(1, true, 0))
	addFuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte, seed uint64, extension byte) {
		b = b[:min(len(b), 8192)]
		offer := fuzzOffers[int(extension)%len(fuzzOffers)]
		if seed%2 == 1 {
			b = mutate(b, seed, offer)
		}
		chop := []int{0, 0, 1, 7, 100}[seed/2%5]
		if chop == 1 && len(b) > 300 {
			chop = 50
		}
		way := bothWays[0]
		if seed%16 == 0 {
			way = overNet
		}
		c := s.connectFuzzed(t, way, offer)
		written := make(chan struct{})
		go func() { // waited for below
			defer close(written)
			_ = c.write(b, chop) // the server may have closed the connection
			// The end of the stream also ends an unfinished frame.
			if tcp, ok := c.Conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}()
		checkAnswers(t, c)
		<-written
		_ = c.Close()
		eventually(
			t, func() bool { return s.GetClientCount() == 0 && s.Stats().Total.Connections == 0 },
			"the connection has ended",
		)
		require.Empty(t, s.log.all())
		if seed%8 == 1 { // and others are served
			c := s.connectFuzzed(t, native, offer)
			if offer != "" {
				c.send(deflated(opText, "Hello"))
				c.expect(text("Hello"))
			}
			c.expectAlive()
		}
	})
}

// addFuzzSeeds adds short cases of all sections, both as streams and as input of the mutator.
func addFuzzSeeds(f *testing.F) {
	for i, sec := range append(sections(), deflateSection()) {
		for j, tc := range sec.cases {
			if j%37 == 0 && len(tc.send) < 600 {
				f.Add(tc.send, uint64(i+j), byte(i+j))
			}
		}
	}
	for i, tc := range append(deflateForms(), deflateViolations()...) {
		if i%5 == 0 && len(tc.send) < 600 {
			f.Add(tc.send, uint64(2*i), byte(1+i%3))
		}
	}
	seed := uint64(1)
	for extension := range byte(len(fuzzOffers)) {
		z := new(compressor)
		var stream []byte
		for range 3 { // with context takeover the later ones refer to the first
			stream = append(stream, wire(frame{op: opText, rsv: 4, payload: z.message(pattern(200))})...)
		}
		bomb := wire(deflated(opBinary, strings.Repeat("\x00", 1<<20)))
		truncated := deflated(opText, pattern(300))
		truncated.payload = truncated.payload[:len(truncated.payload)/2]
		for _, b := range [][]byte{stream, bomb, wire(truncated, text("after"))} {
			f.Add(b, uint64(0), extension)
			f.Add(b, uint64(4), extension)
		}
		for range 4 {
			f.Add([]byte(pattern(400)), seed, extension)
			f.Add([]byte(octets(400)), seed, extension)
			seed += 2
		}
	}
}

// connectFuzzed connects with or without an offer of an extension, which must be accepted.
func (s *server) connectFuzzed(t testing.TB, w way, offer string) *client {
	if offer == "" {
		c, _ := s.connect(t, w, "")
		return c
	}
	c, _ := s.connectDeflate(t, w, offer)
	return c
}

// checkAnswers reads frames until the end, and demands that a server may send each of them.
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
