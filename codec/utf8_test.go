package codec_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// firstInvalid returns the length of the shortest prefix of b that no continuation could make
// valid, or -1. It is slow and obvious: a prefix is hopeless if it stays invalid with each
// well-formed continuation of table 3-7 of the Unicode standard.
func firstInvalid(b []byte) int {
	for n := 1; n <= len(b); n++ {
		if !hopeful(b[:n]) {
			return n
		}
	}
	return -1
}

// hopeful reports whether b can become valid. b without its last byte is hopeful.
func hopeful(b []byte) bool {
	// After a lead byte E0 or F0 only high continuation bytes are well-formed, after ED or F4
	// only low ones, so that one of these two suffices for all.
	for _, c := range []string{"", "\x80", "\xBF"} {
		for _, rest := range []string{"", "\x80", "\x80\x80"} {
			if utf8.ValidString(string(b) + c + rest) {
				return true
			}
		}
	}
	return false
}

// feed writes b in pieces. It returns the number of bytes up to the piece for which Write was
// false, or -1.
func feed(s *codec.UTF8State, b []byte, cut func(int) int) int {
	done := 0
	for done < len(b) {
		n := min(max(cut(len(b)-done), 1), len(b)-done)
		done += n
		if !s.Write(b[done-n : done]) {
			return done
		}
	}
	return -1
}

func TestUTF8FailsAtTheFirstHopelessByte(t *testing.T) {
	tests := []struct {
		name string
		text string
		want int // bytes until it fails, or -1
	}{
		{"empty", "", -1},
		{"ASCII", "hello, world, and some more", -1},
		{"two bytes", "é", -1},
		{"three bytes", "€", -1},
		{"four bytes", "😀", -1},
		{"least of each length", "\x00\u0080\u0800\U00010000", -1},
		{"most of each length", "\x7F\u07FF\uFFFF\U0010FFFF", -1},
		{"around the surrogates", "\uD7FF\uE000", -1},
		{"continuation first", "\x80", 1},
		{"continuation after ASCII", "abc\xBF", 4},
		{"overlong lead C0", "\xC0\x80", 1},
		{"overlong lead C1", "\xC1\xBF", 1},
		{"overlong of three bytes", "\xE0\x9F\x80", 2},
		{"overlong of four bytes", "\xF0\x8F\x80\x80", 2},
		{"first surrogate", "\xED\xA0\x80", 2},
		{"last surrogate", "\xED\xBF\xBF", 2},
		{"U+110000", "\xF4\x90\x80\x80", 2},
		{"lead F5", "\xF5\x80\x80\x80", 1},
		{"lead FF", "\xFF", 1},
		{"two bytes, then ASCII", "\xC3a", 2},
		{"three bytes, third wrong", "\xE2\x82a", 3},
		{"four bytes, third wrong", "\xF0\x9F\xC0", 3},
		{"four bytes, fourth wrong", "\xF0\x9F\x98\x7F", 4},
		{"lead after lead", "\xE2\xE2", 2},
		{"Autobahn 6.4.1", "κόσμε\xF4\x90\x80\x80edited", 12},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, firstInvalid([]byte(tt.text)), "reference")
			assert.Equal(t, tt.want, feed(new(codec.UTF8State), []byte(tt.text), bytewise))
			assert.Equal(t, tt.want < 0, feed(new(codec.UTF8State), []byte(tt.text), whole) < 0)
		})
	}
}

func TestUTF8Complete(t *testing.T) {
	tests := []struct {
		text string
		want bool
	}{
		{"", true},
		{"a", true},
		{"é", true},
		{"\xC3", false},
		{"a\xE2", false},
		{"\xE2\x82", false},
		{"\xF0\x9F\x98", false},
		{"😀", true},
		{"€\xF0", false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q", tt.text), func(t *testing.T) {
			for name, cut := range map[string]func(int) int{"whole": whole, "bytewise": bytewise} {
				var s codec.UTF8State
				require.Equal(t, -1, feed(&s, []byte(tt.text), cut), name)
				assert.Equal(t, tt.want, s.Complete(), name)
			}
		})
	}
}

// TestUTF8EveryRune writes each code point, surrogates included, cut at each byte.
func TestUTF8EveryRune(t *testing.T) {
	for c := rune(0); c <= 0x110100; c++ {
		b := encodeRaw(c)
		for at := range len(b) {
			var s codec.UTF8State
			ok := s.Write(b[:at]) && s.Write(b[at:]) && s.Complete()
			if ok != utf8.Valid(b) {
				t.Fatalf("%#x cut at %d: got %v", c, at, ok)
			}
		}
	}
}

// encodeRaw encodes c by its bits alone, a code point or not.
func encodeRaw(c rune) []byte {
	switch {
	case c < 0x80:
		return []byte{byte(c)}
	case c < 0x800:
		return []byte{0xC0 | byte(c>>6), 0x80 | byte(c&63)}
	case c < 0x10000:
		return []byte{0xE0 | byte(c>>12), 0x80 | byte(c>>6&63), 0x80 | byte(c&63)}
	default:
		return []byte{0xF0 | byte(c>>18), 0x80 | byte(c>>12&63), 0x80 | byte(c>>6&63), 0x80 | byte(c&63)}
	}
}

// TestUTF8EveryShortSequence writes every sequence of two bytes, and every sequence of three and
// four of the bytes at the borders of table 3-7.
func TestUTF8EveryShortSequence(t *testing.T) {
	borders := []byte{
		0x00, 'a', 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
		0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
	}
	for _, a := range borders {
		for _, b := range borders {
			for _, c := range borders {
				for _, d := range borders {
					checkUTF8(t, []byte{a, b, c, d})
				}
			}
		}
	}
	for a := range 256 {
		for b := range 256 {
			checkUTF8(t, []byte{byte(a), byte(b)})
		}
	}
}

// checkUTF8 compares the validator with the reference and with unicode/utf8.
func checkUTF8(t *testing.T, b []byte) {
	t.Helper()
	want := firstInvalid(b)
	var s codec.UTF8State
	if got := feed(&s, b, bytewise); got != want {
		t.Fatalf("% x bytewise: fails after %d bytes, want %d", b, got, want)
	}
	if want < 0 && s.Complete() != utf8.Valid(b) {
		t.Fatalf("% x: complete is %v", b, s.Complete())
	}
	for at := range len(b) + 1 {
		var s codec.UTF8State
		first := s.Write(b[:at])
		if first != (want < 0 || want > at) {
			t.Fatalf("% x cut at %d: the first part is %v, want failure after %d bytes", b, at, first, want)
		}
		if !first {
			continue
		}
		if second := s.Write(b[at:]); second != (want < 0) {
			t.Fatalf("% x cut at %d: the second part is %v", b, at, second)
		}
		if want < 0 && s.Complete() != utf8.Valid(b) {
			t.Fatalf("% x cut at %d: complete is %v", b, at, s.Complete())
		}
	}
}

func TestUTF8RandomText(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for range 2000 {
		b := randomText(r, r.IntN(60))
		if len(b) > 0 && r.IntN(2) == 0 {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		checkUTF8(t, b)
		var s codec.UTF8State
		ok := feed(&s, b, chops(r, 5)) < 0 && s.Complete()
		require.Equal(t, utf8.Valid(b), ok, "% x", b)
	}
}

func FuzzUTF8(f *testing.F) {
	f.Add([]byte("plain ASCII, more than eight bytes of it"), uint64(1))
	f.Add([]byte("κόσμε 😀 \u0800\uFFFF"), uint64(2))
	f.Add([]byte("\xED\xA0\x80\xF4\x90\x80\x80\xE0\x80\x80\xC0\x80"), uint64(3))
	f.Add([]byte("abc\xF0\x9F\x98"), uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		b = b[:min(len(b), 200)]
		checkUTF8(t, b)
		var s codec.UTF8State
		ok := feed(&s, b, chops(rand.New(rand.NewPCG(seed, 0)), 6)) < 0 && s.Complete()
		require.Equal(t, utf8.Valid(b), ok)
	})
}

func BenchmarkUTF8(b *testing.B) {
	texts := map[string]string{
		"ascii": "the quick brown fox ", "latin": "où était l'été? ", "cjk": "日本語の文章です。", "emoji": "😀😃😄 ok ",
	}
	for _, kind := range []string{"ascii", "latin", "cjk", "emoji"} {
		for _, size := range []int{16, 512, 65536} {
			b.Run(fmt.Sprintf("text=%s/size=%d", kind, size), func(b *testing.B) {
				text := []byte(strings.Repeat(texts[kind], size/len(texts[kind])+1))[:size]
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					var s codec.UTF8State
					if !s.Write(text) {
						b.Fatal("valid text is refused")
					}
				}
			})
		}
	}
}
