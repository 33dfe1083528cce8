package conformance_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestUTF8(t *testing.T)        { validUTF8().run(t) }
func TestInvalidUTF8(t *testing.T) { invalidUTF8().run(t) }

// sample is a text with a name.
type sample struct{ name, text string }

const kosme = "κόσμε"

// validTexts returns the well-formed texts of Markus Kuhn's test, and texts at the borders.
func validTexts() []sample {
	all := []sample{
		{"empty", ""},
		{"ASCII", "Hello-World"},
		{"all of ASCII", asciiTable()},
		{"Greek", kosme},
		{"Autobahn 6.2.1", "Hello-µ@ßöäüàá-UTF-8!!"},
		{"shortest of 1 byte", "\x00"},
		{"shortest of 2 bytes", "\u0080"},
		{"shortest of 3 bytes", "\u0800"},
		{"shortest of 4 bytes", "\U00010000"},
		{"longest of 1 byte", "\x7F"},
		{"longest of 2 bytes", "\u07FF"},
		{"longest of 3 bytes", "\uFFFF"},
		{"longest of 4 bytes", "\U0010FFFF"},
		{"before the surrogates", "\uD7FF"},
		{"behind the surrogates", "\uE000"},
		{"replacement character", "\uFFFD"},
		{"last but one", "\U0010FFFE"},
		{"byte order mark", "\uFEFFtext"},
		{"each lead byte of 2", leads(0xC2, 0xDF, 2)},
		{"each lead byte of 3", leads(0xE1, 0xEC, 3) + leads(0xEE, 0xEF, 3)},
		{"each lead byte of 4", leads(0xF1, 0xF3, 4)},
		{
			"narrow lead bytes",
			"\xE0\xA0\x80\xE0\xBF\xBF\xED\x80\x80\xED\x9F\xBF\xF0\x90\x80\x80\xF0\xBF\xBF\xBF\xF4\x80\x80\x80\xF4\x8F\xBF\xBF",
		},
		{"mixed lengths", "aé€😀aé€😀"},
		{"combining", "e\u0301\u200D👩\u200D👩\u200D👧"},
		{"longer than a word", strings.Repeat("plain ASCII before one ", 9) + "é"},
		{"runes across words", strings.Repeat("€", 33)},
	}
	return all
}

// asciiTable returns all 128 characters.
func asciiTable() string {
	b := make([]byte, 128)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

// leads returns a rune of n bytes for each lead byte.
func leads(from, to byte, n int) string {
	var b strings.Builder
	for lead := int(from); lead <= int(to); lead++ {
		b.WriteByte(byte(lead))
		b.WriteString(strings.Repeat("\x80", n-1))
	}
	return b.String()
}

func validUTF8() section {
	var cases []testCase
	add := func(kind, name string, chop int, text string, sent, want []frame) {
		cases = append(cases, testCase{id: "8.1/" + kind + "/" + name, send: wire(sent...), chop: chop, want: want})
	}
	for _, s := range validTexts() {
		want := []frame{text(s.text)}
		add("valid", s.name, 0, s.text, want, want)
		add("valid/chops of 1 bytes", s.name, 1, s.text, want, want)
		add("valid/a fragment for each byte", s.name, 0, s.text, fragments(opText, s.text, 1), want)
		add("valid/a fragment for each byte, chops of 1 bytes", s.name, 1, s.text, fragments(opText, s.text, 1), want)
		if len(s.text) > 1 {
			var sent, echoes []frame
			for at := range len(s.text) - 1 {
				sent = append(sent, first(opText, s.text[:at+1]), ping(""), last(s.text[at+1:]))
				echoes = append(echoes, pong(""), want[0])
			}
			add("valid/cut at each byte", s.name, 0, s.text, sent, echoes)
		}
	}
	for plane := range 17 {
		for _, low := range []int{0xFFFE, 0xFFFF} {
			r := rune(plane<<16 | low)
			want := []frame{text("<" + string(r) + ">")}
			add("noncharacter", fmt.Sprintf("U+%04X", r), 0, "", want, want)
		}
	}
	add("noncharacter", "U+FDD0 to U+FDEF", 0, "", []frame{text(noncharacters())}, []frame{text(noncharacters())})
	// A binary message is no text.
	for _, s := range invalidTexts() {
		want := []frame{binaryOf(s.text)}
		add("binary that is no text", s.name, 0, "", append(want, fragments(opBinary, s.text, 1)...), append(want, want...))
	}
	return section{name: "8.1 valid UTF-8", cases: cases}
}

func noncharacters() string {
	var b strings.Builder
	for r := rune(0xFDD0); r <= 0xFDEF; r++ {
		b.WriteRune(r)
	}
	return b.String()
}

// invalidTexts returns texts that are no UTF-8. truncatedTexts returns those that are cut short.
func invalidTexts() []sample {
	return []sample{
		{"continuation 80", "\x80"},
		{"continuation BF", "\xBF"},
		{"two continuations", "\x80\xBF"},
		{"seven continuations", "\x80\xBF\x80\xBF\x80\xBF\x80"},
		{"all 64 continuations", allContinuations()},
		{"continuation behind a text", kosme + "\x80"},
		{"continuation behind a whole rune", "€\x80"},
		{"lead C0", "\xC0 "},
		{"lead C1", "\xC1\xBF"},
		{"lead of 2, then ASCII", "\xC3a"},
		{"lead of 2, then a lead", "\xC3\xC3"},
		{"lead of 3, then ASCII", "\xE2a"},
		{"lead of 3 and one, then ASCII", "\xE2\x82a"},
		{"lead of 4, then ASCII", "\xF0\x9F "},
		{"lead of 4 and two, then ASCII", "\xF0\x9F\x98\x7F"},
		{"lead of 4 and two, then a lead", "\xF0\x9F\x98\xF0"},
		{"lead F5", "\xF5\x80\x80\x80"},
		{"lead F7", "\xF7\xBF\xBF\xBF"},
		{"5 bytes", "\xF8\x88\x80\x80\x80"},
		{"5 bytes, greatest", "\xFB\xBF\xBF\xBF\xBF"},
		{"6 bytes", "\xFC\x84\x80\x80\x80\x80"},
		{"6 bytes, greatest", "\xFD\xBF\xBF\xBF\xBF\xBF"},
		{"FE", "\xFE"},
		{"FF", "\xFF"},
		{"FE FE FF FF", "\xFE\xFE\xFF\xFF"},
		{"overlong of 2 bytes", "\xC0\xAF"},
		{"overlong of 3 bytes", "\xE0\x80\xAF"},
		{"overlong of 4 bytes", "\xF0\x80\x80\xAF"},
		{"overlong of 5 bytes", "\xF8\x80\x80\x80\xAF"},
		{"overlong of 6 bytes", "\xFC\x80\x80\x80\x80\xAF"},
		{"greatest overlong of 2 bytes", "\xC1\xBF"},
		{"greatest overlong of 3 bytes", "\xE0\x9F\xBF"},
		{"greatest overlong of 4 bytes", "\xF0\x8F\xBF\xBF"},
		{"overlong NUL", "\xC0\x80"},
		{"overlong NUL of 3 bytes", "\xE0\x80\x80"},
		{"first high surrogate", "\xED\xA0\x80"},
		{"last high surrogate", "\xED\xAF\xBF"},
		{"first low surrogate", "\xED\xB0\x80"},
		{"last low surrogate", "\xED\xBF\xBF"},
		{"surrogate pair", "\xED\xA0\x80\xED\xB0\x80"},
		{"private surrogate pair", "\xED\xAE\x80\xED\xBF\xBF"},
		{"surrogate within a text", kosme + "\xED\xA0\x80edited"},
		{"U+110000", "\xF4\x90\x80\x80"},
		{"U+110000 within a text", kosme + "\xF4\x90\x80\x80edited"},
		{"U+1FFFFF", "\xF7\xBF\xBF\xBF"},
		{"behind a long text", pattern(5000) + "\xFF"},
		{"Latin-1", "caf\xE9 cr\xE8me"},
		{"UTF-16", "\xFF\xFEa\x00"},
	}
}

func allContinuations() string {
	var b strings.Builder
	for c := 0x80; c < 0xC0; c++ {
		b.WriteByte(byte(c))
	}
	return b.String()
}

// truncatedTexts returns valid beginnings of texts that must not end there.
func truncatedTexts() []sample {
	return []sample{
		{"1 of 2", "\xC3"},
		{"1 of 3", "\xE2"},
		{"2 of 3", "\xE2\x82"},
		{"1 of 4", "\xF0"},
		{"2 of 4", "\xF0\x9F"},
		{"3 of 4", "\xF0\x9F\x98"},
		{"before the surrogates", "\xED\x9F"},
		{"up to U+10FFFF", "\xF4\x8F\xBF"},
		{"behind a text", kosme + "\xE1\xBD"},
		{"behind a long text", pattern(5000) + "\xF0\x9F\x98"},
	}
}

// hopelessAt returns the length of the shortest prefix of s that no continuation could make
// valid. It is slow and obvious.
func hopelessAt(s string) int {
	for n := 1; n <= len(s); n++ {
		hopeful := false
		for _, c := range []string{"", "\x80", "\xBF"} { // after E0 and F0 only high ones are valid, after ED and F4 low ones
			for _, rest := range []string{"", "\x80", "\x80\x80"} {
				hopeful = hopeful || utf8.ValidString(s[:n]+c+rest)
			}
		}
		if !hopeful {
			return n
		}
	}
	panic(fmt.Sprintf("%q is not hopeless", s))
}

func invalidUTF8() section {
	var cases []testCase
	for _, s := range invalidTexts() {
		n := hopelessAt(s.text)
		frames := fragments(opText, s.text, 1)
		frames = append(frames[:min(n, len(frames)-1)], frame{op: opCont, payload: s.text[len(s.text)-1:]})
		if len(s.text) == 1 {
			frames = []frame{text(s.text)}
		}
		unfinished := frame{op: opText, payload: s.text[:n], announces: uint64(len(s.text)) + 70000}
		cases = append(cases,
			testCase{
				id: "8.1/invalid/whole/" + s.name, send: wire(text("before"), text(s.text), text("after")),
				want: []frame{text("before")}, code: 1007,
			},
			testCase{
				id: "8.1/invalid/a fragment for each byte/" + s.name, send: wire(append(frames, text("after"))...),
				code: 1007,
			},
			// The rest of the frame never comes.
			testCase{id: "8.1/fail fast/within a frame/" + s.name, send: wire(unfinished), code: 1007},
			testCase{
				id:   "8.1/fail fast/within a frame, at once within a message/" + s.name,
				send: wire(first(opText, "begun "), frame{payload: s.text[:n], more: true, announces: 1 << 20}),
				code: 1007,
			})
		if n > 100 {
			continue
		}
		cases = append(cases, testCase{
			id: "8.1/fail fast/within a frame, chops of 1 bytes/" + s.name, send: wire(unfinished), chop: 1,
			code: 1007,
		})
		// Each byte is a fragment. A ping behind it proves that the server has accepted it.
		var sent, want []frame
		for i := range n {
			f := next(s.text[i : i+1])
			if i == 0 {
				f.op = opText
			}
			if sent = append(sent, f, ping(fmt.Sprint(i))); i < n-1 {
				want = append(want, pong(fmt.Sprint(i)))
			}
		}
		cases = append(cases, testCase{
			id: "8.1/fail fast/with the byte, not before/" + s.name, send: wire(sent...), want: want, code: 1007,
		})
	}
	for _, s := range truncatedTexts() {
		cases = append(cases,
			testCase{id: "8.1/truncated/whole/" + s.name, send: wire(text(s.text), text("after")), code: 1007},
			testCase{id: "8.1/truncated/chops of 1 bytes/" + s.name, send: wire(text(s.text)), chop: 1, code: 1007},
			testCase{
				id:   "8.1/truncated/then an empty last fragment/" + s.name,
				send: wire(first(opText, s.text), ping("so far"), last("")), want: []frame{pong("so far")}, code: 1007,
			},
			testCase{
				id: "8.1/truncated/then ASCII/" + s.name, send: wire(first(opText, s.text), ping("so far"), next("a")),
				want: []frame{pong("so far")}, code: 1007,
			},
			testCase{
				id: "8.1/truncated/behind a binary message/" + s.name, send: wire(binaryOf(s.text), text(s.text)),
				want: []frame{binaryOf(s.text)}, code: 1007,
			})
	}
	return section{name: "8.1 invalid UTF-8", cases: cases}
}

// TestInvalidUTF8InSteps sends the valid part of a frame, then the byte that makes it invalid, then
// nothing (Autobahn 6.4.3 and 6.4.4). Before that byte the server must not complain; the count of
// the bytes that it has read proves that it had the valid part.
func TestInvalidUTF8InSteps(t *testing.T) {
	for _, w := range bothWays {
		for _, s := range invalidTexts() {
			t.Run(string(w)+"/8.1/"+s.name, func(t *testing.T) {
				s, text := start(t), kosme+s.text
				c, _ := s.connect(t, w, "")
				n := hopelessAt(text)
				before := s.Stats().Total.BytesIn
				b := wire(frame{op: opText, payload: text[:n], announces: 100_000})
				require.NoError(t, c.write(b[:len(b)-1], 0))
				eventually(t, func() bool { return s.Stats().Total.BytesIn == before+uint64(len(b)-1) }, "the server reads it")
				require.Zero(t, s.invalid.Load())
				require.NoError(t, c.write(b[len(b)-1:], 0))
				c.expectFailure(1007)
				require.EqualValues(t, 1, s.invalid.Load())
				require.Zero(t, s.handled.Load())
			})
		}
	}
}
