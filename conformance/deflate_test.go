package conformance_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// offering returns header lines that offer extensions.
func offering(values ...string) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString("Sec-WebSocket-Extensions: " + v + "\r\n")
	}
	return b.String()
}

// compressing returns the server's option for compression.
func compressing(threshold int, takeover bool, bits int) ws.Option {
	return ws.WithCompression(ws.CompressionConfig{Threshold: threshold, ContextTakeover: takeover, WindowBits: bits})
}

// never is a threshold that no message reaches.
const never = 1 << 30

// deflated returns the frame of a compressed message.
func deflated(op byte, s string) frame { return frame{op: op, rsv: 4, payload: deflate(s)} }

// deflate compresses one message (RFC 7692 section 7.2.1).
func deflate(s string) string { return new(compressor).message(s) }

// compressor compresses messages that refer to earlier messages.
type compressor struct {
	w *flate.Writer
	b bytes.Buffer
}

func (z *compressor) message(s string) string {
	if z.w == nil {
		z.w, _ = flate.NewWriter(&z.b, flate.BestCompression) // the level exists
	}
	z.b.Reset()
	_, _ = z.w.Write([]byte(s)) // a bytes.Buffer returns no error
	_ = z.w.Flush()
	return strings.TrimSuffix(z.b.String(), "\x00\x00\xff\xff")
}

// compressed returns a section for compressed connections.
func compressed(sec section, threshold int) section {
	sec.offer = offering("permessage-deflate")
	sec.opts = append([]ws.Option{compressing(threshold, false, 0)}, sec.opts...)
	sec.agree = func(c *client, resp *http.Response) {
		readAnswer(c.t, resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate").use(c)
	}
	return sec
}

// TestEverythingOnCompressedConnections runs all sections with the extension negotiated. The
// server compresses all messages that it can; the client compresses none.
func TestEverythingOnCompressedConnections(t *testing.T) {
	for _, sec := range sections() {
		sec.cases = slices.DeleteFunc(sec.cases, func(tc testCase) bool {
			return strings.HasPrefix(tc.id, "5.2/RSV 1") // RSV1 has a meaning here
		})
		compressed(sec, 1).run(t)
	}
}

func TestDeflate(t *testing.T)       { compressed(deflateSection(), never).run(t) }
func TestDeflateEchoes(t *testing.T) { compressed(deflateSection(), 1).run(t) }

// compressible returns n bytes with matches at short and long distances.
func compressible(n int) string {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	block := make([]byte, 3001)
	for i := range block {
		block[i] = byte('a' + r.IntN(26))
	}
	var b strings.Builder
	for b.Len() < n {
		from := r.IntN(len(block))
		b.Write(block[from:min(from+5+r.IntN(400), len(block))])
		b.WriteString(strconv.Itoa(r.IntN(100000)))
	}
	return b.String()[:n]
}

// deflateSection returns compressed messages in every form, by the sections of RFC 7692.
var deflateSection = sync.OnceValue(func() section {
	var cases []testCase
	add := func(tc testCase) { cases = append(cases, tc) }
	for _, n := range []int{0, 1, 16, 125, 126, 127, 128, 1000, 65535, 65536, 65537, 200_000} {
		for _, chop := range []int{0, 1, 7, 997} {
			if n > 1000 && chop == 1 {
				continue
			}
			for _, op := range []byte{opText, opBinary} {
				s := compressible(n)
				if op == opBinary {
					s = octets(n)
				}
				add(testCase{
					id:   fmt.Sprintf("7692 6.1/opcode %d of %d bytes/%s", op, n, chopped(chop)),
					send: wire(deflated(op, s)), chop: chop, want: []frame{{op: op, payload: s}},
				})
			}
		}
	}
	for _, n := range []int{16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072} {
		for _, part := range []int{0, 1, 16, 256, 1024, 4096, 32768} {
			count := max(1, shrunk(min(1000, 1<<20/n)))
			s := compressible(n)
			z := deflate(s)
			frames := []frame{{op: opText, rsv: 4, payload: z}}
			if part > 0 {
				if part >= len(z) || len(z)/part > 2000 {
					continue
				}
				frames = fragments(opText, z, part)
				frames[0].rsv = 4
				count = max(1, count/4)
			}
			add(testCase{
				id:   fmt.Sprintf("7692 6.1/%d texts of %s in fragments of %d", count, size(n), part),
				send: wire(slices.Repeat(frames, count)...), want: slices.Repeat([]frame{text(s)}, count),
			})
		}
	}
	for _, s := range append(validTexts(), sample{"runes of all lengths", strings.Repeat("aé€😀", 500)}) {
		for _, part := range []int{1, 7} { // the cuts fall into runes and codes, too
			frames := fragments(opText, deflate(s.text), part)
			frames[0].rsv = 4
			cases = append(cases, testCase{
				id:   fmt.Sprintf("6455 8.1/compressed, valid, fragments of %d/%s", part, s.name),
				send: wire(frames...), chop: part, want: []frame{text(s.text)},
			})
		}
	}
	for _, n := range []int{1 << 20, 16 << 20} {
		payload := octets(shrunk(n))
		frames := fragments(opBinary, deflate(payload), 1000)
		frames[0].rsv = 4
		add(
			testCase{
				id: "7692 6.1/binary of " + size(n) + " in fragments", send: wire(frames...),
				want: []frame{binaryOf(payload)},
			},
		)
	}
	return section{name: "RFC 7692 messages", cases: append(append(cases, deflateForms()...), deflateViolations()...)}
})

// deflateForms returns the allowed forms of a compressed message.
func deflateForms() []testCase {
	hello := []frame{text("Hello")}
	z := func(payload string) frame { return frame{op: opText, rsv: 4, payload: payload} }
	stored := func(s string, final byte) string {
		b := binary.LittleEndian.AppendUint16([]byte{final}, uint16(len(s)))
		return string(binary.LittleEndian.AppendUint16(b, ^uint16(len(s)))) + s
	}
	cut := func(payload string, at int) []frame {
		return []frame{{op: opText, rsv: 4, more: true, payload: payload[:at]}, last(payload[at:])}
	}
	const sample = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	cases := []testCase{
		{id: "7692 7.2.3.1/one block", send: wire(z(sample)), want: hello},
		{id: "7692 7.2.3.1/fragmented", send: wire(cut(sample, 3)...), want: hello},
		{id: "7692 7.2.3.3/no compression", send: wire(z("\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")), want: hello},
		{id: "7692 7.2.3.4/BFINAL", send: wire(z("\xf3\x48\xcd\xc9\xc9\x07\x00\x00")), want: hello},
		{id: "7692 7.2.3.4/BFINAL without an empty block", send: wire(z("\xf3\x48\xcd\xc9\xc9\x07\x00")), want: hello},
		{id: "7692 7.2.3.4/BFINAL stored", send: wire(z(stored("Hello", 1))), want: hello},
		{
			id:   "7692 7.2.3.4/BFINAL, then another, chops of 1 bytes",
			send: wire(z(stored("Hel", 1) + stored("lo", 1) + "\x00")), chop: 1, want: hello,
		},
		{id: "7692 7.2.3.4/BFINAL, then another", send: wire(z(stored("Hel", 1) + stored("lo", 1) + "\x00")), want: hello},
		{id: "7692 7.2.3.5/two blocks", send: wire(z("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")), want: hello},
		{
			id:   "7692 7.2.3.5/stored blocks",
			send: wire(z(stored("Hel", 0) + stored("", 0) + stored("lo", 0) + "\x00")), want: hello,
		},
		{id: "7692 7.2.3.6/empty message", send: wire(z("\x00")), want: []frame{text("")}},
		{id: "7692 7.2.3.6/empty message with a fixed block", send: wire(z("\x02\x00")), want: []frame{text("")}},
		{id: "7692 7.2.3.6/payload of no bytes", send: wire(z("")), want: []frame{text("")}},
		{id: "7692 7.2.3.6/empty, fragmented", send: wire(cut("\x00", 0)...), want: []frame{text("")}},
		{id: "7692 6/not compressed", send: wire(text("Hello")), want: hello},
		{id: "7692 6/not compressed, fragmented", send: wire(first(opText, "Hel"), last("lo")), want: hello},
		{
			id: "7692 6/compressed and not, in turn", send: wire(z(sample), text("a"), z(sample), binaryOf("b")),
			want: []frame{hello[0], text("a"), hello[0], binaryOf("b")},
		},
		{
			id:   "7692 6/pings between the fragments",
			send: wire(cut(sample, 2)[0], ping("p"), next(sample[2:4]), pong(""), ping("q"), last(sample[4:])),
			want: []frame{pong("p"), pong("q"), hello[0]},
		},
		{
			id: "7692 6/empty fragments", send: wire(cut(sample, 0)[0], next(""), next(sample), next(""), last("")),
			want: hello,
		},
		{
			id: "7692 6/closes within a compressed message", send: wire(cut(sample, 3)[0], closing(1000, "x")),
			want: []frame{closing(1000, "x")}, ended: true,
		},
		{id: "7692 6/UTF-8", send: wire(deflated(opText, kosme+"😀")), want: []frame{text(kosme + "😀")}},
		{
			id: "7692 6/binary that is no text", send: wire(deflated(opBinary, "\xFF\xFE")),
			want: []frame{binaryOf("\xFF\xFE")},
		},
	}
	for at := range len(sample) + 1 {
		cases = append(cases, testCase{
			id: fmt.Sprintf("7692 7.2.3.1/cut at %d", at), send: wire(cut(sample, at)...), chop: 1, want: hello,
		})
	}
	return cases
}

// deflateViolations returns the violations on a compressed connection.
func deflateViolations() []testCase {
	good := deflated(opText, pattern(300))
	before := []frame{text(pattern(300))}
	var cases []testCase
	bad := func(id string, code uint16, want []frame, frames ...frame) {
		cases = append(cases, testCase{id: id, code: code, want: want, send: wire(frames...)},
			testCase{id: id + "/chops of 1 bytes", code: code, want: want, send: wire(frames...), chop: 1})
	}
	begun := frame{op: opText, rsv: 4, more: true, payload: good.payload[:5]}
	bad("7692 6.1/RSV1 on a continuation", 1002, nil, begun, frame{rsv: 4, payload: good.payload[5:]})
	bad(
		"7692 6.1/RSV1 on a continuation of an uncompressed message", 1002, nil, first(opText, "a"),
		frame{rsv: 4, payload: "b"},
	)
	bad("7692 6.1/RSV1 on a continuation with more to come", 1002, before, good, begun, frame{rsv: 4, more: true})
	for _, op := range []byte{opPing, opPong, opClose} {
		bad(fmt.Sprintf("7692 6.1/RSV1 on opcode %#x", op), 1002, before, good, frame{op: op, rsv: 4, payload: "\x03\xE8"})
		bad(fmt.Sprintf("7692 6.1/RSV1 on opcode %#x within a message", op), 1002, nil, begun, frame{op: op, rsv: 4})
	}
	for _, op := range []byte{opText, opBinary, opCont, opPing, opPong, opClose} {
		for _, rsv := range []byte{1, 2, 3, 5, 6, 7} {
			f, want := []frame{good}, before
			if op == opCont {
				f, want = []frame{good, begun}, before
			}
			bad(fmt.Sprintf("6455 5.2/RSV %03b on opcode %#x", rsv, op), 1002, want, append(f, frame{op: op, rsv: rsv})...)
		}
	}
	for op := byte(3); op < 8; op++ {
		bad(fmt.Sprintf("6455 5.2/RSV1 on opcode %d", op), 1002, nil, frame{op: op, rsv: 4, payload: good.payload})
	}
	bad("6455 5.4/continuation behind a compressed message", 1002, before, good, last(""))
	bad("6455 5.4/new message within a compressed one", 1002, nil, begun, good)
	for name, payload := range map[string]string{
		"garbage": "\xff\xff\xff\xff", "block of type 3": "\x06",
		"stored length that does not fit": "\x00\x05\x00\x00\x00Hello",
		"a match before the start":        "\x02\x63\x00", "cut short": good.payload[:len(good.payload)/2],
		"stored, cut short":  "\x00\xff\x00\x00\xffHel",
		"dynamic, cut short": deflate(compressible(5000))[:100], "too many lengths": "\xfc\xff\xff\xff\xff",
		"bytes behind the last block": "\xf3\x48\xcd\xc9\xc9\x07\x00\xff\xfe",
	} {
		bad("7692 7.2.2/"+name, 1007, before, good, frame{op: opBinary, rsv: 4, payload: payload})
	}
	for _, s := range invalidTexts() {
		bad("6455 8.1/compressed/"+s.name, 1007, before, good, deflated(opText, s.text))
	}
	for _, s := range truncatedTexts() {
		bad("6455 8.1/compressed, truncated/"+s.name, 1007, before, good, deflated(opText, s.text))
	}
	cases = append(cases, deflateFailFast(before, good)...)
	bomb := deflate(strings.Repeat("\x00", maxMessage+1))
	return append(cases, testCase{
		id:   "6455 10.4/one byte more than the limit, inflated",
		send: wire(good, frame{op: opBinary, rsv: 4, payload: bomb}), want: before, code: 1009,
	})
}

// deflateFailFast returns the beginnings of texts that are already invalid. Their ends never come.
func deflateFailFast(before []frame, good frame) []testCase {
	var cases []testCase
	bad := func(id string, code uint16, payload string) {
		fragment := frame{op: opText, rsv: 4, more: true, payload: payload}
		unfinished := frame{op: opText, rsv: 4, payload: payload, announces: uint64(len(payload)) + 70000}
		cases = append(cases,
			testCase{id: id + "/within a message", code: code, want: before, send: wire(good, fragment)},
			testCase{id: id + "/within a frame", code: code, want: before, send: wire(good, unfinished)},
			testCase{
				id: id + "/within a second fragment", code: code, want: before,
				send: wire(good, frame{op: opText, rsv: 4, more: true}, frame{payload: payload, announces: 1 << 16}),
			})
	}
	for _, s := range invalidTexts() {
		bad("6455 8.1/compressed, fail fast/"+s.name, 1007, deflate(s.text))
		// Byte by byte the part may grow to twice the size before the server checks it.
		cases = append(cases, testCase{
			id: "6455 8.1/compressed, fail fast, chops of 1 bytes/" + s.name, code: 1007, chop: 1,
			send: wire(
				frame{op: opText, rsv: 4, more: true, payload: deflate(s.text + strings.Repeat("0123456789", 10+len(s.text)))},
			),
		})
	}
	bad("7692 7.2.2/fail fast/garbage", 1007, "\xff\xff\xff\xff")
	bad("7692 7.2.2/fail fast/a match before the start", 1007, "\x02\x63\x00")
	bad("6455 10.4/fail fast/a bomb", 1009, deflate(strings.Repeat("\x00", maxMessage+1)))
	return cases
}

// TestDeflateBombs sends messages that would inflate to a multiple of the limit. The server stops there.
func TestDeflateBombs(t *testing.T) {
	const limit = 64 << 10
	bomb := wire(deflated(opBinary, strings.Repeat("\x00", shrunk(64<<20))))
	s := start(t, compressing(1, false, 0), ws.WithMessageSizeLimit(limit))
	c, _ := s.connectDeflate(t, native, "permessage-deflate")
	c.send(deflated(opBinary, strings.Repeat("\x00", limit)))
	c.expect(binaryOf(strings.Repeat("\x00", limit)))
	c.expectAlive()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const bombs = 50
	for i := range bombs {
		c, _ := s.connectDeflate(t, bothWays[i%2], "permessage-deflate")
		tc := testCase{send: bomb, code: 1009}
		tc.run(c)
	}
	runtime.ReadMemStats(&after)
	perBomb := (after.TotalAlloc - before.TotalAlloc) / bombs
	assert.Less(t, perBomb, uint64(1<<20), "bytes allocated for each")
	require.EqualValues(t, bombs, s.invalid.Load())
	require.EqualValues(t, 1, s.handled.Load())
}

// TestDeflateFailFastInContext checks that the server inflates the received part of a text in the
// context of earlier messages, and leaves the context unchanged.
func TestDeflateFailFastInContext(t *testing.T) {
	s := start(t, compressing(1, true, 0))
	c, a := s.connectDeflate(t, native, "permessage-deflate")
	require.False(t, a.clientNoTakeover)
	z, sample := new(compressor), strings.Repeat("aé€😀", 100)+compressible(2000)
	for range 3 {
		frames := fragments(opText, z.message(sample), 5)
		frames[0].rsv = 4
		require.NoError(t, c.write(wire(frames...), 1))
		c.expect(text(sample))
	}
	payload := z.message(sample + "\xff")
	require.Less(t, len(payload), 100, "it refers to earlier messages")
	c.send(frame{op: opText, rsv: 4, more: true, payload: payload})
	c.expectFailure(1007)
}

// TestDeflateTakeover checks that context takeover shortens a repeated message, and that without
// it each message stands alone.
func TestDeflateTakeover(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		t.Run(fmt.Sprint("7692 7.1.1/takeover ", takeover), func(t *testing.T) {
			s := start(t, compressing(1, takeover, 0))
			c, a := s.connectDeflate(t, native, "permessage-deflate")
			var sizes []int
			inflate := c.inflate
			c.inflate = func(payload string) (string, error) {
				sizes = append(sizes, len(payload))
				return inflate(payload)
			}
			exchangeSame(c, a, compressible(3000), 5)
			require.Len(t, sizes, 5)
			for _, n := range sizes[1:] {
				if takeover {
					assert.Less(t, n, sizes[0]/4)
				} else {
					assert.Equal(t, sizes[0], n)
				}
			}
		})
	}
}

func exchangeSame(c *client, a agreement, s string, n int) {
	z := new(compressor)
	for range n {
		if a.clientNoTakeover {
			z = new(compressor)
		}
		c.send(frame{op: opText, rsv: 4, payload: z.message(s)})
		c.expect(text(s))
	}
	c.expectAlive()
}

// TestDeflateThreshold checks the default: a message below 512 bytes is not compressed.
func TestDeflateThreshold(t *testing.T) {
	s := start(t, compressing(0, false, 0))
	c, _ := s.connectDeflate(t, native, "permessage-deflate")
	inflate, inflated := c.inflate, 0
	c.inflate = func(payload string) (string, error) { inflated++; return inflate(payload) }
	c.send(text(pattern(511)), deflated(opText, pattern(511)))
	c.expect(text(pattern(511)), text(pattern(511)))
	require.Zero(t, inflated)
	c.send(text(pattern(512)), deflated(opText, pattern(512)))
	c.expect(text(pattern(512)), text(pattern(512)))
	require.Equal(t, 2, inflated)
	c.expectAlive()
}

// TestDeflateCount checks the number of cases.
func TestDeflateCount(t *testing.T) {
	n := len(deflateSection().cases)
	t.Logf("%d cases of compressed messages, and %d offers", n, len(offers()))
	require.Greater(t, n, 200)
}
