package codec

import (
	"encoding/binary"
	"math"
	"slices"
)

const (
	// MaxHeaderSize is the size in bytes of the largest unmasked frame header.
	MaxHeaderSize = 10
	// MaxControlPayload is the most payload bytes of a control frame (RFC 6455 section 5.5).
	MaxControlPayload = 125
)

// The bits of the first two header bytes (RFC 6455 section 5.2).
const (
	bitFIN    = 0x80
	bitsRSV   = 0x70
	bitRSV1   = 0x40
	bitsOp    = 0x0F
	bitMask   = 0x80
	bitsLen   = 0x7F
	lenTwo    = 126 // the length follows in two bytes
	lenEight  = 127 // the length follows in eight bytes
	maxLenOne = 125 // the longest payload with its length in the second byte
)

// HeaderSize returns the size in bytes of an unmasked frame header for n payload bytes. Safe
// for concurrent use.
func HeaderSize(n int) int {
	switch {
	case n <= maxLenOne:
		return 2
	case n <= math.MaxUint16:
		return 4
	default:
		return MaxHeaderSize
	}
}

// AppendHeader appends to dst the header of an unmasked frame with FIN set and n payload
// bytes, and returns the result. The caller keeps n within MaxControlPayload for a control
// opcode. Safe for concurrent use.
func AppendHeader(dst []byte, op Opcode, n int) []byte {
	first := bitFIN | byte(op)
	switch {
	case n <= maxLenOne:
		return append(dst, first, byte(n))
	case n <= math.MaxUint16:
		return append(dst, first, lenTwo, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, lenEight), uint64(n))
	}
}

// AppendFrame appends to dst one unmasked frame with FIN set and returns the result. The
// payload is borrowed. The caller keeps it within MaxControlPayload for a control opcode.
// Safe for concurrent use.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(AppendHeader(dst, op, len(payload)), payload...)
}

// FrameSize returns the size in bytes of the unmasked frame at the start of b. b must hold the
// whole header. Safe for concurrent use.
func FrameSize(b []byte) int {
	switch n := int(b[1] & bitsLen); n {
	case lenTwo:
		return 4 + int(binary.BigEndian.Uint16(b[2:]))
	case lenEight:
		return MaxHeaderSize + int(binary.BigEndian.Uint64(b[2:]))
	default:
		return 2 + n
	}
}

// NewFrame returns one unmasked frame with FIN set in a slice of its own. The capacity of the
// slice is the memory that it takes. The payload is borrowed; the frame is shared. The caller
// keeps the payload within MaxControlPayload for a control opcode. Safe for concurrent use.
func NewFrame(op Opcode, payload []byte) []byte {
	return AppendFrame(slices.Grow([]byte(nil), HeaderSize(len(payload))+len(payload)), op, payload)
}
