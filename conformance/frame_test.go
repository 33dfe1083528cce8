package conformance_test

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// The opcodes of RFC 6455 section 5.2, as numbers, because the suite does not rely on the library.
const (
	opCont   = 0x0
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

// frame is one frame of a client or of a server. A correct client leaves each field at its zero
// value.
type frame struct {
	op      byte
	more    bool // FIN is clear
	rsv     byte // RSV1 is 4, RSV2 2, RSV3 1
	payload string

	bare      bool     // no mask
	key       *[4]byte // nil for a key that differs from frame to frame
	lengthIn  int      // bytes of the extended length, 2 or 8; 0 for the fewest
	announces uint64   // in place of the payload's length, if not 0
}

func text(s string) frame     { return frame{op: opText, payload: s} }
func binaryOf(s string) frame { return frame{op: opBinary, payload: s} }
func ping(s string) frame     { return frame{op: opPing, payload: s} }
func pong(s string) frame     { return frame{op: opPong, payload: s} }

// first, next and last return the fragments of a message.
func first(op byte, s string) frame { return frame{op: op, more: true, payload: s} }
func next(s string) frame           { return frame{op: opCont, more: true, payload: s} }
func last(s string) frame           { return frame{op: opCont, payload: s} }

// closing returns a close frame with a code.
func closing(code uint16, reason string) frame {
	return frame{op: opClose, payload: string(binary.BigEndian.AppendUint16(nil, code)) + reason}
}

// wire encodes frames as a client sends them.
func wire(frames ...frame) []byte {
	var b []byte
	for i, f := range frames {
		key := [4]byte{0x37, 0xFA, byte(0x21 + i), byte(0x3D ^ i)}
		if f.key != nil {
			key = *f.key
		}
		b = f.append(b, key)
	}
	return b
}

// append encodes f at the end of b.
func (f frame) append(b []byte, key [4]byte) []byte {
	b = f.appendHeader(b)
	if f.bare {
		return append(b, f.payload...)
	}
	b = append(b, key[:]...)
	at := len(b)
	b = append(b, f.payload...)
	for block := bytes.Repeat(key[:], min(1024, len(f.payload)/4+1)); at < len(b); at += len(block) {
		subtle.XORBytes(b[at:], b[at:], block)
	}
	return b
}

// appendHeader encodes all of the header but the masking key.
func (f frame) appendHeader(b []byte) []byte {
	first := f.op | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	mask := byte(0x80)
	if f.bare {
		mask = 0
	}
	n := uint64(len(f.payload))
	if f.announces != 0 {
		n = f.announces
	}
	in := f.lengthIn
	if in == 0 && n > 125 {
		in = 2
	}
	if in == 2 && n > 0xFFFF {
		in = 8
	}
	switch in {
	case 2:
		return binary.BigEndian.AppendUint16(append(b, first, mask|126), uint16(n))
	case 8:
		return binary.BigEndian.AppendUint64(append(b, first, mask|127), n)
	}
	return append(b, first, mask|byte(n))
}

// String returns the text of f in a failure.
func (f frame) String() string {
	s := fmt.Sprintf("opcode %#x, FIN %v, RSV %03b, %d bytes", f.op, !f.more, f.rsv, len(f.payload))
	if len(f.payload) <= 200 {
		s += fmt.Sprintf(" %q", f.payload)
	}
	return s
}

// fragments cuts s into the fragments of one message, each of size bytes but the last.
func fragments(op byte, s string, size int) []frame {
	var frames []frame
	for {
		n := min(size, len(s))
		frames = append(frames, frame{op: op, more: n < len(s), payload: s[:n]})
		if s, op = s[n:], opCont; s == "" {
			return frames
		}
	}
}
