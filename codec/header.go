package codec

import (
	"encoding/binary"
	"math"
)

// maxClientHeaderSize is the size in bytes of the largest header with its masking key.
const maxClientHeaderSize = MaxHeaderSize + 4

// header holds the fields of a frame header. Not safe for concurrent use.
type header struct {
	length int64
	key    [4]byte
	op     Opcode
	fin    bool
	masked bool
	// compressed is RSV1 of the first frame of a message.
	compressed bool
}

// assembly is the state of the message in progress, as far as the header rules depend on it.
// Not safe for concurrent use.
type assembly struct {
	fragmented bool  // a data message has begun and not ended
	compressed bool  // and its payload is compressed
	deflate    bool  // permessage-deflate is in use
	unmasked   bool  // the frames are those of a server
	size       int64 // the message's payload bytes so far
	limit      int64 // the message's most payload bytes; zero and negative mean no limit
}

// maxLength returns the largest payload length that the frame of h may announce, in bytes.
// Subtracting from the limit cannot overflow; adding to the length could. A compressed message
// can be a little longer than the message it inflates to, which is limited when it is inflated.
func (a *assembly) maxLength(h *header) int64 {
	if a.limit <= 0 || h.op.IsControl() {
		return math.MaxInt64
	}
	limit := a.limit
	if h.compressed || a.compressed {
		limit = min(limit, math.MaxInt64/2)
		limit += limit>>10 + 64
	}
	return limit - a.size
}

// parseHeader reads the header at the start of b and returns its size, or 0 if b ends within
// it. It applies each rule as soon as the bytes for it are there, in the order of the bytes, so
// that every division of a stream gives the same error. b is borrowed.
func parseHeader(b []byte, a assembly) (h header, size int, err error) {
	if len(b) == 0 {
		return h, 0, nil
	}
	h.op, h.fin = Opcode(b[0]&bitsOp), b[0]&bitFIN != 0
	h.compressed = a.deflate && b[0]&bitRSV1 != 0 && (h.op == OpText || h.op == OpBinary)
	if err := checkFirst(b[0], h, a.fragmented); err != nil {
		return h, 0, err
	}
	if len(b) == 1 {
		return h, 0, nil
	}
	if h.masked = b[1]&bitMask != 0; h.masked == a.unmasked {
		return h, 0, a.wrongMask()
	}
	short := b[1] & bitsLen
	if h.op.IsControl() && short > MaxControlPayload {
		return h, 0, ErrControlTooLong
	}
	length, n, err := parseLength(short, b[2:])
	if n < 0 || err != nil {
		return h, 0, err
	}
	if length > a.maxLength(&h) {
		return h, 0, ErrMessageTooLarge
	}
	h.length = length
	size = 2 + n
	if a.unmasked {
		return h, size, nil // parseLength has seen all bytes
	}
	if len(b) < size+4 {
		return h, 0, nil
	}
	h.key = [4]byte(b[size:])
	return h, size + 4, nil
}

// wrongMask is the error of a frame with a mask that it must not have, or without one that it
// needs.
func (a *assembly) wrongMask() error {
	if a.unmasked {
		return ErrMasked
	}
	return ErrUnmasked
}

// checkFirst applies the rules that need the first header byte alone.
func checkFirst(first byte, h header, fragmented bool) error {
	switch {
	case first&bitsRSV != 0 && (!h.compressed || first&bitsRSV != bitRSV1):
		return ErrReservedBits
	case h.op.isReserved():
		return ErrReservedOpcode
	case h.op.IsControl():
		if !h.fin {
			return ErrFragmentedControl
		}
	case h.op == OpContinuation && !fragmented:
		return ErrUnexpectedContinuation
	case h.op != OpContinuation && fragmented:
		return ErrExpectedContinuation
	}
	return nil
}

// parseLength returns the payload length. short is the seven length bits of the second header
// byte, and b holds the bytes behind it. n is the number of bytes of b that belong to the
// length; it is negative if b ends within them.
func parseLength(short byte, b []byte) (length int64, n int, err error) {
	switch short {
	case lenTwo:
		if len(b) < 2 {
			return 0, -1, nil
		}
		v := binary.BigEndian.Uint16(b)
		if v <= maxLenOne {
			return 0, -1, ErrLengthNotMinimal
		}
		return int64(v), 2, nil
	case lenEight:
		if len(b) > 0 && b[0]&0x80 != 0 {
			return 0, -1, ErrLengthOverflow
		}
		if len(b) < 8 {
			return 0, -1, nil
		}
		v := binary.BigEndian.Uint64(b)
		if v <= math.MaxUint16 {
			return 0, -1, ErrLengthNotMinimal
		}
		return int64(v), 8, nil
	default:
		return int64(short), 0, nil
	}
}
