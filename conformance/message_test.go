package conformance_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/race"
)

func TestMessages(t *testing.T) { messages().run(t) }
func TestLimits(t *testing.T)   { limits().run(t) }

// size names a number of bytes.
func size(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// shrunk returns n, or a quarter of it under the race detector: there the bytes of large messages
// cost minutes, and 4 MiB take the same paths as 16 MiB. The names of cases keep the whole size.
func shrunk(n int) int {
	if race.Enabled {
		return n / 4
	}
	return n
}

// messages returns cases of large messages and of many small ones. Each echo is compared byte by
// byte. The messages are built when the case runs.
func messages() section {
	var cases []testCase
	add := func(id string, op byte, n, part, count, chop int) {
		if count > 1 {
			count = shrunk(count)
		} else {
			n = shrunk(n)
		}
		cases = append(cases, testCase{id: id, chop: chop, large: func() (sent, want []frame) {
			payload := pattern(n)
			if op == opBinary {
				payload = octets(n)
			}
			want = slices.Repeat([]frame{{op: op, payload: payload}}, count)
			if part > 0 {
				return fragments(op, payload, part), want
			}
			return want, want
		}})
	}
	kinds := []struct {
		name string
		op   byte
	}{{"text", opText}, {"binary", opBinary}}
	for _, kind := range kinds {
		for _, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20} {
			add("5.6/"+kind.name+" of "+size(n), kind.op, n, 0, 1, 0)
			for _, part := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
				if n/part <= mostFragments && (kind.op == opBinary || n <= 1<<20 || part >= 16<<10) {
					add(fmt.Sprintf("5.6/%s of %s in fragments of %s", kind.name, size(n), size(part)), kind.op, n, part, 1, 0)
				}
			}
		}
		for _, chop := range []int{64, 128, 256, 512, 1024, 2048} {
			add(fmt.Sprintf("5.6/%s of 1 MiB/chops of %d bytes", kind.name, chop), kind.op, 1<<20, 0, 1, chop)
		}
		for _, n := range []int{0, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10} {
			add(fmt.Sprintf("5.6/1000 times %s of %s", kind.name, size(n)), kind.op, n, 0, 1000, 0)
		}
	}
	add("5.4/65536 bytes in fragments of 1300", opText, 65536, 1300, 1, 0)
	cases = append(cases, testCase{
		id: "5.6/UTF-8 of 3 MiB in fragments that cut runes",
		large: func() (sent, want []frame) {
			return fragments(opText, runes(), 4093), []frame{text(runes())}
		},
	})
	return section{name: "5.6 large and many messages", cases: cases}
}

// runes returns a little over 3 MiB of runes of every length.
func runes() string {
	const period = "aé€😀 日本語の文章 κόσμε "
	b := make([]byte, 0, 4<<20)
	for len(b) < 3<<20 {
		b = append(b, period...)
	}
	return string(b)
}

// limits returns messages around a limit of 1,000 bytes.
func limits() section {
	const limit = 1000
	exact := pattern(limit)
	tooLong := func(id string, want []frame, send []byte) testCase {
		return testCase{id: "10.4/" + id, send: send, want: want, code: 1009}
	}
	header := func(f frame) []byte { return wire(f)[:len(wire(f))-4] } // no masking key, no payload
	cases := []testCase{
		echoes("10.4/text at the limit", 0, text(exact)),
		echoes("10.4/binary at the limit", 0, binaryOf(exact)),
		echoes("10.4/text at the limit/chops of 1 bytes", 1, text(exact)),
		echoes("10.4/many at the limit", 0, text(exact), binaryOf(exact), text(exact)),
		{id: "10.4/fragments that reach the limit", send: wire(fragments(opText, exact, 10)...), want: []frame{text(exact)}},
		{
			id: "10.4/fragments that reach the limit, and an empty one", send: wire(first(opText, exact), last("")),
			want: []frame{text(exact)},
		},
		{
			id:   "10.4/control frames do not count",
			send: wire(first(opText, exact[:990]), ping(pattern(125)), last(exact[990:])),
			want: []frame{pong(pattern(125)), text(exact)},
		},
		tooLong("text of one byte more", []frame{text("before")}, wire(text("before"), text(exact+"x"), text("after"))),
		tooLong("binary of one byte more", []frame{text("before")}, wire(text("before"), binaryOf(exact+"x"))),
		tooLong("its header alone", nil, header(frame{op: opText, announces: limit + 1})),
		tooLong("64 KiB announced", nil, header(frame{op: opBinary, announces: 64 << 10})),
		tooLong("2^63-1 announced", nil, header(frame{op: opBinary, announces: math.MaxInt64})),
		tooLong(
			"2^63-1 announced by a continuation", nil,
			append(wire(first(opBinary, "a")), header(frame{announces: math.MaxInt64})...),
		),
		tooLong("fragment too many, its header alone", nil, append(wire(first(opText, exact)), wire(last("x"))[:2]...)),
		tooLong("fragments that exceed it", nil, wire(fragments(opText, exact+"x", 7)...)),
		tooLong(
			"endless fragments", nil,
			wire(slices.Concat([]frame{first(opBinary, "")}, slices.Repeat([]frame{next("x")}, limit+1))...),
		),
		tooLong("second fragment alone exceeds it", []frame{pong("p")}, wire(first(opText, "a"), ping("p"), next(exact))),
	}
	return section{name: "10.4 limits", cases: cases, opts: []ws.Option{ws.WithMessageSizeLimit(limit)}}
}
