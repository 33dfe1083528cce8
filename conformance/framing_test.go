package conformance_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestFraming(t *testing.T)  { framing().run(t) }
func TestMasking(t *testing.T)  { masking().run(t) }
func TestReserved(t *testing.T) { reserved().run(t) }

// pattern returns n bytes of ASCII that repeat with no power of two.
func pattern(n int) string {
	const period = "The quick brown fox jumps over the lazy dog; 0123456789. "
	return strings.Repeat(period, n/len(period)+1)[:n]
}

// octets returns n bytes that are no UTF-8, with each value among them.
func octets(n int) string {
	period := make([]byte, min(n, 1<<16))
	for i := range period {
		period[i] = byte(i*7 + i>>8 + 0xFE)
	}
	return strings.Repeat(string(period), n/max(len(period), 1)+1)[:n]
}

// chopped names a size of writes.
func chopped(chop int) string {
	if chop == 0 {
		return "whole"
	}
	return fmt.Sprintf("chops of %d bytes", chop)
}

func framing() section {
	var cases []testCase
	for _, n := range []int{0, 1, 2, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537} {
		for _, chop := range []int{1, 7, 997, 0} {
			if chop == 997 && n < 997 {
				continue // the same as a single write
			}
			id := fmt.Sprintf("length %d/%s", n, chopped(chop))
			cases = append(cases,
				echoes("5.2/text/"+id, chop, text(pattern(n))),
				echoes("5.2/binary/"+id, chop, binaryOf(octets(n))))
		}
	}
	return section{name: "5.2 lengths", cases: append(cases, badLengths()...)}
}

// badLengths returns cases of forbidden lengths.
func badLengths() []testCase {
	var cases []testCase
	for _, f := range []struct {
		name string
		frame
	}{{"text", text("")}, {"binary", binaryOf("")}} {
		for _, in := range []struct{ length, bytes int }{
			{0, 2}, {1, 2}, {124, 2}, {125, 2}, {0, 8}, {1, 8}, {125, 8}, {126, 8}, {127, 8}, {65535, 8},
		} {
			f.payload, f.lengthIn = pattern(in.length), in.bytes
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.2/not minimal/%s of %d in %d bytes", f.name, in.length, in.bytes),
				send: wire(text("before"), f.frame, text("after")), want: []frame{text("before")}, code: 1002,
			})
		}
		for _, n := range []uint64{1 << 63, 1<<63 + 1, 1<<63 | 65536, 1<<64 - 1} {
			f := frame{op: f.op, announces: n}
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.2/top bit/%s of %#x", f.String()[:10], n),
				send: wire(text("before"), f), want: []frame{text("before")}, code: 1002,
			})
		}
	}
	// The server refuses it at once: the rest of the header never comes.
	cases = append(cases,
		testCase{id: "5.2/not minimal/two bytes alone", send: []byte{0x82, 0xFE, 0, 125}, code: 1002},
		testCase{id: "5.2/not minimal/eight bytes alone", send: []byte{0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, code: 1002},
		testCase{
			id: "5.2/not minimal/chops of 1 bytes", send: wire(frame{op: opText, payload: "a", lengthIn: 2}), chop: 1,
			code: 1002,
		},
		testCase{id: "5.2/top bit/its byte alone", send: []byte{0x82, 0xFF, 0x80}, code: 1002},
		testCase{id: "5.2/top bit/in a continuation", send: wire(first(opText, "a"), frame{announces: 1 << 63}), code: 1002},
		testCase{
			id: "5.2/not minimal/in a continuation", send: wire(first(opText, "a"), frame{payload: "b", lengthIn: 8}),
			code: 1002,
		},
	)
	return cases
}

func masking() section {
	var cases []testCase
	for _, n := range []int{0, 1, 5, 125, 126, 65536} {
		for _, f := range []frame{
			text(pattern(n)), binaryOf(octets(n)), last(pattern(n)), ping(pattern(n)), pong(pattern(n)),
			closing(1000, pattern(n)),
		} {
			if f.op&8 != 0 && n > 123 {
				continue // it is also too long
			}
			f.bare = true
			before := []frame{text("before")}
			if f.op == opCont {
				before = append(before, first(opText, "begun"))
			}
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.1/unmasked/opcode %#x of %d bytes", f.op, n),
				send: wire(append(before, f)...), want: before[:1], code: 1002,
			})
		}
	}
	cases = append(cases, testCase{id: "5.1/unmasked/two bytes alone", send: []byte{0x81, 5}, code: 1002},
		testCase{
			id: "5.1/unmasked/chops of 1 bytes", send: wire(frame{op: opText, payload: "hello", bare: true}), chop: 1,
			code: 1002,
		})
	for _, key := range [][4]byte{
		{}, {0xFF, 0xFF, 0xFF, 0xFF}, {1}, {0, 0, 0, 1}, {0x81, 0x05, 'H', 'e'}, {0x20, 0x20, 0x20, 0x20},
	} {
		for _, n := range []int{5, 63, 1000, 66000} {
			f, b := text(pattern(n)), binaryOf(octets(n))
			f.key, b.key = &key, &key
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.3/key %x/%d bytes", key, n),
				send: wire(f, b), want: []frame{text(f.payload), binaryOf(b.payload)},
			})
		}
	}
	zero := [4]byte{}
	a, b, c := first(opText, "ab"), next("cdefg"), last("h")
	b.key = &zero
	cases = append(cases, testCase{
		id: "5.3/each fragment a key of its own", send: wire(a, b, c), want: []frame{text("abcdefgh")},
	})
	return section{name: "5.1, 5.3 masks", cases: cases}
}

func reserved() section {
	var cases []testCase
	open := []frame{text("before"), ping("ping"), first(opText, "begun")}
	for rsv := byte(1); rsv < 8; rsv++ {
		for _, f := range []frame{text("hello"), binaryOf("hello"), last("end"), ping("p"), pong("p"), closing(1000, "")} {
			f.rsv = rsv
			id := fmt.Sprintf("5.2/RSV %03b/opcode %#x", rsv, f.op)
			if f.op == opCont || f.op&8 != 0 {
				cases = append(cases, testCase{
					id: id + "/within a message", send: wire(append(open, f, ping("after"))...),
					want: []frame{text("before"), pong("ping")}, code: 1002,
				})
			}
			if f.op == opCont {
				continue
			}
			cases = append(cases,
				testCase{id: id + "/first", send: wire(f), code: 1002},
				testCase{
					id: id + "/behind a message", send: wire(text("before"), f, ping("after"), text("after")),
					want: []frame{text("before")}, code: 1002,
				})
		}
		f := frame{op: opText, rsv: rsv, payload: "hello"}
		cases = append(cases,
			testCase{
				id: fmt.Sprintf("5.2/RSV %03b/chops of 1 bytes", rsv), send: wire(text("before"), f), chop: 1,
				want: []frame{text("before")}, code: 1002,
			},
			testCase{id: fmt.Sprintf("5.2/RSV %03b/its byte alone", rsv), send: wire(f)[:1], code: 1002})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		id := fmt.Sprintf("5.2/opcode %d/", op)
		f := frame{op: op}
		long := frame{op: op, payload: pattern(200)}
		cases = append(cases,
			testCase{id: id + "empty", send: wire(f), code: 1002},
			testCase{id: id + "its byte alone", send: wire(f)[:1], code: 1002},
			testCase{id: id + "with a payload", send: wire(frame{op: op, payload: "reserved"}), code: 1002},
			testCase{
				id: id + "behind a message", send: wire(text("before"), f, ping("after")), want: []frame{text("before")},
				code: 1002,
			},
			testCase{
				id: id + "behind a message/chops of 1 bytes", send: wire(text("before"), long, ping("after")), chop: 1,
				want: []frame{text("before")}, code: 1002,
			},
			testCase{
				id: id + "within a message", send: wire(append(open, f, last("end"))...),
				want: []frame{text("before"), pong("ping")}, code: 1002,
			},
			testCase{id: id + "fragmented", send: wire(frame{op: op, more: true, payload: "a"}, last("b")), code: 1002})
	}
	return section{name: "5.2 reserved bits and opcodes", cases: cases}
}
