package conformance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestClose(t *testing.T) { closes().run(t) }

// answered returns a case of a close frame that comes back unchanged, and the end.
func answered(id string, before []frame, f frame, behind ...frame) testCase {
	sent := append(append([]frame(nil), before...), f)
	return testCase{
		id: id, send: wire(append(sent, behind...)...), want: append(append([]frame(nil), before...), f),
		ended: true,
	}
}

func closes() section {
	hello := []frame{text("hello")}
	empty := frame{op: opClose}
	longest := strings.Repeat("é", 61) + "x" // 123 bytes
	cases := []testCase{
		answered("7.1/without a payload", nil, empty),
		answered("7.1/behind a message", hello, closing(1000, "done")),
		answered(
			"7.1/behind many messages", []frame{text("a"), binaryOf("b"), text(pattern(70000)), text("")},
			closing(1000, ""),
		),
		answered("7.1.6/reason of 123 bytes", nil, closing(1000, longest)),
		answered("7.1.6/reason of 122 bytes", nil, closing(1000, longest[1:][1:]+"y")),
		answered("7.1.6/reason of 1 byte", nil, closing(1000, "x")),
		answered("7.1.6/reason with a NUL", nil, closing(1000, "a\x00b")),
		answered("7.1.6/reason of every rune length", nil, closing(1000, "aé€😀")),
		answered("5.5.1/second close", nil, closing(1000, "first"), closing(1001, "second")),
		answered("5.5.1/text behind the close", hello, closing(1000, ""), text("ignored")),
		answered("5.5.1/ping behind the close", nil, closing(1000, ""), ping("ignored")),
		answered("5.5.1/pong behind the close", nil, closing(1000, ""), pong("ignored")),
		answered("5.5.1/256 KiB behind the close", nil, closing(1000, ""), binaryOf(octets(256<<10))),
		answered(
			"5.5.1/a violation behind the close", nil, closing(1000, ""),
			frame{op: 3, rsv: 7, bare: true, payload: "ignored"},
		),
		answered("5.5.1/invalid text behind the close", nil, closing(3000, "x"), text("\xFF")),
		answered(
			"5.5.1/half a frame behind the close", nil, closing(1000, ""),
			frame{op: opText, announces: 1000, payload: "ignored"},
		),
		{
			id: "5.5.1/within a message", send: wire(first(opText, "begun"), closing(1000, "enough"), last("end")),
			want: []frame{closing(1000, "enough")}, ended: true,
		},
		{
			id:   "5.5.1/within a message, between pings",
			send: wire(first(opBinary, "begun"), ping("1"), closing(1001, ""), ping("2"), last("end")),
			want: []frame{pong("1"), closing(1001, "")}, ended: true,
		},
		{id: "7.1/payload of 1 byte", send: wire(frame{op: opClose, payload: "\x03"}), code: 1002},
		{
			id:   "7.1/payload of 1 byte/behind a message",
			send: wire(text("hello"), frame{op: opClose, payload: "a"}, text("after")), want: hello, code: 1002,
		},
		{id: "7.1.6/reason of 124 bytes", send: wire(closing(1000, longest+"x")), code: 1002},
		{id: "7.1.6/reason of 126 bytes", send: wire(closing(1000, pattern(126))), code: 1002},
		{
			id: "5.5.1/an empty close, then a second one with a bad code", send: wire(empty, closing(999, "")),
			want: []frame{empty}, ended: true,
		},
	}
	for name, reason := range map[string]string{
		"a lone continuation": "\x80", "a lead cut short": "abc\xE2\x82", "a surrogate": "\xED\xA0\x80",
		"overlong":       "\xC0\x80",
		"above U+10FFFF": "\xF4\x90\x80\x80",
		"Autobahn's":     "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited", "FF": "\xFF",
	} {
		cases = append(cases, testCase{
			id: "8.1/close reason is " + name, send: wire(closing(1000, reason), text("after")), code: 1007,
		})
	}
	for _, code := range []uint16{
		1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3500, 3999, 4000, 4001,
		4500, 4999,
	} {
		cases = append(cases,
			answered(fmt.Sprintf("7.4/code %d", code), nil, closing(code, "")),
			answered(fmt.Sprintf("7.4/code %d with a reason", code), hello, closing(code, "bye")))
	}
	for _, code := range []uint16{
		0, 1, 500, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 5001, 32768, 65534, 65535,
	} {
		cases = append(cases,
			testCase{id: fmt.Sprintf("7.4/invalid code %d", code), send: wire(closing(code, "")), code: 1002},
			testCase{
				id:   fmt.Sprintf("7.4/invalid code %d with a reason", code),
				send: wire(text("hello"), closing(code, "bye"), text("after")), want: hello, code: 1002,
			})
	}
	// The bytes arrive one by one, so that some arrive after the server has closed.
	for _, tc := range slices.Clip(cases) {
		if len(tc.send) < 400 && !strings.HasPrefix(tc.id, "7.4") {
			tc.id, tc.chop = tc.id+"/chops of 1 bytes", 1
			cases = append(cases, tc)
		}
	}
	return section{name: "7 close", cases: append(cases, serverCloses()...)}
}

// serverCloses returns the closes that the server begins.
func serverCloses() []testCase {
	var cases []testCase
	by := func(id string, code uint16, behind ...frame) {
		cases = append(cases, testCase{
			id:   "7.1.2/the server begins/" + id,
			send: wire(text("a"), text(closePlease+fmt.Sprint(code))), then: wire(behind...),
			want: []frame{text("a"), closing(code, "as you wish")}, ended: true,
		})
	}
	for _, code := range []uint16{1000, 1001, 1008, 1011, 3000, 4999} {
		by(fmt.Sprintf("code %d", code), code, closing(code, ""))
	}
	by("answered with another code", 1000, closing(4000, "other"))
	by("answered without a code", 1000, frame{op: opClose})
	by("text before the answer", 1000, text("ignored"), closing(1000, ""))
	by("ping before the answer", 1000, ping("ignored"), closing(1000, ""))
	by("a fragment before the answer", 1000, first(opText, "ignored"), closing(1000, ""))
	by("a whole fragmented message before the answer", 1001, first(opText, "ignored"), last("too"), closing(1000, ""))
	by("128 KiB before the answer", 1000, binaryOf(octets(128<<10)), closing(1000, ""))
	by("a violation in place of the answer", 1000, frame{op: opText, rsv: 7})
	by("a bad code in the answer", 1000, closing(1006, ""))
	return cases
}
