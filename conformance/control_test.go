package conformance_test

import (
	"fmt"
	"testing"
)

func TestControl(t *testing.T) { control().run(t) }

func control() section {
	var cases []testCase
	for _, chop := range []int{0, 1, 3} {
		for _, n := range []int{0, 1, 2, 64, 124, 125} {
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.5.2/ping of %d bytes/%s", n, chopped(chop)),
				send: wire(ping(octets(n))), chop: chop, want: []frame{pong(octets(n))},
			}, testCase{
				id:   fmt.Sprintf("5.5.3/unsolicited pong of %d bytes/%s", n, chopped(chop)),
				send: wire(pong(octets(n)), text("after")), chop: chop, want: []frame{text("after")},
			})
		}
		for _, n := range []int{10, 1000} {
			var pings, pongs []frame
			for i := range n {
				p := fmt.Sprint("payload ", i)
				pings, pongs = append(pings, ping(p)), append(pongs, pong(p))
			}
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.5.2/%d pings in order/%s", n, chopped(chop)),
				send: wire(pings...), chop: chop, want: pongs,
			})
		}
		cases = append(cases,
			testCase{
				id: "5.5.3/pong, then ping/" + chopped(chop), send: wire(pong("unsolicited"), ping("our own")),
				chop: chop, want: []frame{pong("our own")},
			},
			testCase{
				id: "5.5.2/ping that is no UTF-8/" + chopped(chop), send: wire(ping("\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF")),
				chop: chop, want: []frame{pong("\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF")},
			},
			testCase{
				id:   "5.5.2/pings and messages in order/" + chopped(chop),
				send: wire(ping("1"), text("2"), ping("3"), binaryOf("4"), ping("")), chop: chop,
				want: []frame{pong("1"), text("2"), pong("3"), binaryOf("4"), pong("")},
			})
	}
	for _, op := range []byte{opPing, opPong, opClose} {
		for _, n := range []int{126, 127, 128, 65535, 65536} {
			payload := "\x03\xE8" + pattern(n-2)
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.5/opcode %#x of %d bytes", op, n),
				send: wire(text("before"), frame{op: op, payload: payload}, text("after")),
				want: []frame{text("before")}, code: 1002,
			}, testCase{
				id:   fmt.Sprintf("5.5/opcode %#x of %d bytes/header alone", op, n),
				send: wire(frame{op: op, announces: uint64(n)})[:2], code: 1002,
			})
		}
		for _, in := range []int{2, 8} {
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.5/opcode %#x of 5 bytes with its length in %d", op, in),
				send: wire(frame{op: op, payload: "\x03\xE8abc", lengthIn: in}), code: 1002,
			})
		}
		cases = append(cases, testCase{
			id:   fmt.Sprintf("5.5/opcode %#x of 126 bytes between fragments", op),
			send: wire(first(opText, "begun"), frame{op: op, payload: pattern(126)}, last("end")), code: 1002,
		}, testCase{
			id:   fmt.Sprintf("5.5/opcode %#x of 126 bytes/chops of 1 bytes", op),
			send: wire(frame{op: op, payload: pattern(126)}), chop: 1, code: 1002,
		})
	}
	return section{name: "5.5 control frames", cases: cases}
}
