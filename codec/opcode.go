package codec

import "strconv"

// Opcode is the four-bit frame type of RFC 6455 section 5.2. Safe for concurrent use.
type Opcode byte

// The opcodes of RFC 6455 section 11.8; all others are reserved.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// IsControl reports whether op is a control opcode (RFC 6455 section 5.5), reserved ones
// included.
func (op Opcode) IsControl() bool { return op&0x8 != 0 }

// isReserved reports whether RFC 6455 gives op no meaning.
func (op Opcode) isReserved() bool { return op&0x7 > 2 || op > OpPong }

// String returns the name RFC 6455 gives op, or "reserved 0x3" and so on.
func (op Opcode) String() string {
	switch op {
	case OpContinuation:
		return "continuation"
	case OpText:
		return "text"
	case OpBinary:
		return "binary"
	case OpClose:
		return "close"
	case OpPing:
		return "ping"
	case OpPong:
		return "pong"
	default:
		return "reserved 0x" + strconv.FormatUint(uint64(op), 16)
	}
}
