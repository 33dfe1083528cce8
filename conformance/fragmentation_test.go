package conformance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFragmentation(t *testing.T) { fragmentation().run(t) }
func TestOrders(t *testing.T)        { orders().run(t) }

func fragmentation() section {
	cases := []testCase{
		{id: "5.4/empty first", send: wire(first(opText, ""), last("end")), want: []frame{text("end")}},
		{id: "5.4/empty middle", send: wire(first(opText, "a"), next(""), last("end")), want: []frame{text("aend")}},
		{id: "5.4/empty last", send: wire(first(opText, "a"), last("")), want: []frame{text("a")}},
		{id: "5.4/all empty", send: wire(first(opText, ""), next(""), last("")), want: []frame{text("")}},
		{id: "5.4/all empty/binary", send: wire(first(opBinary, ""), next(""), last("")), want: []frame{binaryOf("")}},
		{
			id: "5.4/empty but the middle", send: wire(first(opText, ""), next("middle"), last("")),
			want: []frame{text("middle")},
		},
		{
			id: "5.4/two messages", send: wire(first(opText, "a"), last("b"), first(opBinary, "\xFF"), last("\xFE")),
			want: []frame{text("ab"), binaryOf("\xFF\xFE")},
		},
		{
			id: "5.4/then a whole one", send: wire(first(opText, "a"), last("b"), text("c")),
			want: []frame{text("ab"), text("c")},
		},
		{
			id:   "5.4/unsolicited pong between",
			send: wire(first(opText, "a"), pong("x"), next("b"), pong(""), last("c")), want: []frame{text("abc")},
		},
		{
			id:   "5.4/ping between, the message first then",
			send: wire(first(opText, "a"), ping("1"), last("b"), ping("2")),
			want: []frame{pong("1"), text("ab"), pong("2")},
		},
		{
			id:   "5.4/ping and pong between",
			send: wire(first(opBinary, "a"), ping("1"), pong("1"), next("b"), ping(""), last("c")),
			want: []frame{pong("1"), pong(""), binaryOf("abc")},
		},
		{
			id:   "5.4/pings of 125 bytes between",
			send: wire(first(opText, "a"), ping(octets(125)), next("b"), ping(octets(125)), last("c")),
			want: []frame{pong(octets(125)), pong(octets(125)), text("abc")},
		},
		{
			id: "5.4/fragments of every length form",
			send: wire(
				first(opBinary, octets(125)), next(octets(126)), next(octets(65535)), next(octets(65536)),
				last(octets(1)),
			),
			want: []frame{binaryOf(octets(125) + octets(126) + octets(65535) + octets(65536) + octets(1))},
		},
	}
	for _, n := range []int{2, 3, 10, 100, 1000} {
		for _, chop := range []int{0, 1, 7} {
			if n == 1000 && chop == 1 {
				continue
			}
			whole := pattern(4 * n)
			cases = append(cases, testCase{
				id:   fmt.Sprintf("5.4/text in %d fragments/%s", n, chopped(chop)),
				send: wire(fragments(opText, whole, 4)...), chop: chop, want: []frame{text(whole)},
			}, testCase{
				id:   fmt.Sprintf("5.4/binary in %d fragments/%s", n, chopped(chop)),
				send: wire(fragments(opBinary, octets(4*n), 4)...), chop: chop, want: []frame{binaryOf(octets(4 * n))},
			})
		}
		var sent, want []frame
		for i, f := range fragments(opText, pattern(4*n), 4) {
			p := fmt.Sprint("between ", i)
			sent = append(sent, ping(p), f)
			want = append(want, pong(p))
		}
		want = append(want, text(pattern(4*n)))
		cases = append(cases,
			testCase{id: fmt.Sprintf("5.4/a ping before each of %d fragments", n), send: wire(sent...), want: want},
			testCase{
				id: fmt.Sprintf("5.4/a ping before each of %d fragments/chops of 5 bytes", n), send: wire(sent...),
				chop: 5, want: want,
			})
	}
	for _, chop := range []int{1, 7, 0} {
		cases = append(cases,
			testCase{
				id:   "5.4/pings between/" + chopped(chop),
				send: wire(first(opText, "fragment1"), ping("p1"), ping("p2"), last("fragment2")), chop: chop,
				want: []frame{pong("p1"), pong("p2"), text("fragment1fragment2")},
			},
			testCase{
				id: "5.4/many empty fragments/" + chopped(chop),
				send: wire(
					slices.Concat([]frame{first(opText, "a")}, slices.Repeat([]frame{next("")}, 100), []frame{last("b")})...,
				),
				chop: chop, want: []frame{text("ab")},
			})
	}
	return section{name: "5.4 fragmentation", cases: append(cases, badFragments()...)}
}

// badFragments returns cases of fragments in wrong places.
func badFragments() []testCase {
	var cases []testCase
	bad := func(id string, want []frame, sent ...frame) {
		for _, chop := range []int{0, 1} {
			cases = append(cases, testCase{
				id: "5.4/" + id + "/" + chopped(chop), send: wire(sent...), chop: chop, want: want, code: 1002,
			})
		}
	}
	hello := []frame{text("hello")}
	bad("continuation first", nil, last("no message"), text("hello"))
	bad("continuation first, empty", nil, last(""))
	bad("continuation first, more to come", nil, next("no message"), last("end"))
	bad("continuation behind a whole message", hello, text("hello"), last("no message"), text("after"))
	bad("continuation behind a fragmented message", hello, first(opText, "hel"), last("lo"), last("no message"))
	bad(
		"continuation behind a fragmented message, more to come", hello, first(opText, "hel"), last("lo"),
		next("no message"), last("x"),
	)
	bad("continuation behind a ping", []frame{pong("p")}, ping("p"), last("no message"))
	bad("a pair of continuations again and again", nil, next("a"), last("b"), next("c"), last("d"))
	for _, inner := range []frame{text("new"), binaryOf("new"), first(opText, "new"), first(opBinary, "new")} {
		for _, outer := range []byte{opText, opBinary} {
			bad(
				fmt.Sprintf("opcode %d (FIN %v) within opcode %d", inner.op, !inner.more, outer), nil,
				first(outer, "begun"), inner, last("end"),
			)
			bad(
				fmt.Sprintf("opcode %d (FIN %v) within opcode %d behind a continuation and a ping", inner.op, !inner.more, outer),
				[]frame{pong("p")}, first(outer, "begun"), next("more"), ping("p"), inner,
			)
		}
	}
	for _, op := range []byte{opPing, opPong, opClose} {
		f := frame{op: op, more: true}
		bad(fmt.Sprintf("fragmented control/opcode %#x, empty", op), nil, f, last(""))
		bad(fmt.Sprintf("fragmented control/opcode %#x within a message", op), nil, first(opText, "begun"), f, last("end"))
		f.payload = "\x03\xE8fragment"
		bad(fmt.Sprintf("fragmented control/opcode %#x with a payload", op), hello, text("hello"), f, last("rest"))
		bad(fmt.Sprintf("fragmented control/opcode %#x and another", op), nil, f, frame{op: op, payload: "rest"})
	}
	return cases
}

// orders enumerates every order of one, two and three frames: whole texts and binaries, first
// fragments, last and other continuations, ping and pong.
func orders() section {
	letters := []struct {
		name string
		frame
	}{
		{"text", text("t")},
		{"text...", first(opText, "T")},
		{"binary", binaryOf("b")},
		{"binary...", first(opBinary, "B")},
		{"...end", last("e")},
		{"...more...", next("m")},
		{"ping", ping("p")},
		{"pong", pong("q")},
	}
	var cases []testCase
	var grow func(names []string, sent []frame)
	grow = func(names []string, sent []frame) {
		if len(sent) > 0 {
			want, bad := assemble(sent)
			tc := testCase{id: "5.4/order/" + strings.Join(names, ", "), send: wire(sent...), want: want}
			if bad {
				tc.code = 1002
			} else if _, open := assemble(append(slices.Clone(sent), text("probe"))); open {
				tc.send = append(tc.send, wire(last("!"))...) // so that the connection can close orderly
				tc.want, _ = assemble(append(slices.Clone(sent), last("!")))
			}
			cases = append(cases, tc)
		}
		if len(sent) == 3 {
			return
		}
		for _, l := range letters {
			grow(append(slices.Clone(names), l.name), append(slices.Clone(sent), l.frame))
		}
	}
	grow(nil, nil)
	return section{name: "5.4 every order of three frames", cases: cases, ways: []way{native}}
}

// assemble applies the rules of section 5.4, slow and obvious. It returns the frames of an echo,
// and whether a frame breaks the rules.
func assemble(sent []frame) (answers []frame, bad bool) {
	var message *frame
	for _, f := range sent {
		switch {
		case f.op == opPing:
			answers = append(answers, pong(f.payload))
			continue
		case f.op == opPong:
			continue
		case (f.op == opCont) != (message != nil):
			return answers, true
		case f.op == opCont:
			message.payload += f.payload
		default:
			message = &frame{op: f.op, payload: f.payload}
		}
		if !f.more {
			answers = append(answers, *message)
			message = nil
		}
	}
	return answers, false
}
