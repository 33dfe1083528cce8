//go:build linux

package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
)

// The opcodes that the load generator uses.
const (
	OpText   = 0x1
	OpBinary = 0x2
	OpClose  = 0x8
	OpPing   = 0x9
	OpPong   = 0xA
	// maxHeader is the longest header of an unmasked frame.
	maxHeader = 10
)

// Mask is the masking key of all frames that the load generator sends. It is
// fixed, so that frames are built once; the server cannot know that.
var Mask = [4]byte{0x5a, 0xc3, 0x3c, 0xa5}

// mask64 is the key twice, as stamps are masked.
var mask64 = uint64(binary.LittleEndian.Uint32(Mask[:]))<<32 | uint64(binary.LittleEndian.Uint32(Mask[:]))

// Frame is one frame of the server.
type Frame struct {
	Op   byte
	Size int
	// head is the payload's start, control.StampBytes at most, or all of it if
	// the loop reads whole frames; borrowed.
	Head []byte
}

// Seq and sent read the stamp; the payload must hold one.
func (f *Frame) Seq() uint64 { return binary.LittleEndian.Uint64(f.Head) }

// Sent reads the time of the stamp; the payload must hold one.
func (f *Frame) Sent() int64 { return int64(binary.LittleEndian.Uint64(f.Head[8:])) }

// Parser cuts a stream into frames. Between two reads it keeps the header and
// the stamp of an unfinished frame and the count of its other bytes, which are
// not looked at. Not safe for concurrent use.
type Parser struct {
	kept    [maxHeader + control.StampBytes]byte
	n       uint8  // bytes in kept; 0 between frames
	skipped uint32 // bytes that came behind them
}

var errBadFrame = errors.New("bench: masked, fragmented or oversized frame from the server")

// Next takes one frame off b, which follows the bytes of the last call. ok is
// false if b ended first; then all of b is used up.
func (p *Parser) Next(b []byte) (rest []byte, f Frame, ok bool, err error) {
	if p.n == 0 {
		header, size, known, err := frameHeader(b)
		if err != nil {
			return nil, Frame{}, false, err
		}
		if end := header + size; known && end <= len(b) {
			head := b[header : header+min(size, control.StampBytes)]
			return b[end:], Frame{Op: b[0] & 0xF, Size: size, Head: head}, true, nil
		}
	}
	return p.nextPart(b)
}

// nextPart is next for a frame that comes in pieces.
func (p *Parser) nextPart(b []byte) (rest []byte, f Frame, ok bool, err error) {
	for {
		header, size, known, err := frameHeader(p.kept[:p.n])
		if err != nil {
			return nil, Frame{}, false, err
		}
		keep := header
		if known {
			keep += min(size, control.StampBytes)
		}
		if have := int(p.n); have < keep {
			n := copy(p.kept[have:keep], b)
			p.n += uint8(n)
			if b = b[n:]; have+n < keep {
				return b, Frame{}, false, nil
			}
			continue
		}
		skip := min(header+size-keep-int(p.skipped), len(b))
		p.skipped += uint32(skip)
		if b = b[skip:]; keep+int(p.skipped) < header+size {
			return b, Frame{}, false, nil
		}
		p.n, p.skipped = 0, 0
		return b, Frame{Op: p.kept[0] & 0xF, Size: size, Head: p.kept[header:keep]}, true, nil
	}
}

// wholeFrame takes one frame off b and sees all of its payload. ok is false if b
// ends first.
func wholeFrame(b []byte) (rest []byte, f Frame, ok bool, err error) {
	header, size, known, err := frameHeader(b)
	if err != nil || !known || len(b) < header+size {
		return b, Frame{}, false, err
	}
	return b[header+size:], Frame{Op: b[0] & 0xF, Size: size, Head: b[header : header+size]}, true, nil
}

// frameHeader reads a frame's header off b: its length and the payload's. If b
// is too short, known is false and header is the length to try next.
func frameHeader(b []byte) (header, size int, known bool, err error) {
	if len(b) < 2 {
		return 2, 0, false, nil
	}
	if b[0]&0xF0 != 0x80 || b[1]&0x80 != 0 {
		return 0, 0, false, errBadFrame
	}
	switch size = int(b[1]); size {
	case 126:
		if len(b) < 4 {
			return 4, 0, false, nil
		}
		return 4, int(binary.BigEndian.Uint16(b[2:])), true, nil
	case 127:
		if len(b) < maxHeader {
			return maxHeader, 0, false, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long > 1<<30 {
			return 0, 0, false, errBadFrame
		}
		return maxHeader, int(long), true, nil
	default:
		return 2, size, true, nil
	}
}

// MaskedFrame returns payload as one masked frame.
func MaskedFrame(op byte, payload []byte) []byte {
	dst := append(make([]byte, 0, len(payload)+14), 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, Mask[:]...)
	for i, c := range payload {
		dst = append(dst, c^Mask[i&3])
	}
	return dst
}

// ServerFrameBytes is the length of the server's frame, which has no mask, of a
// payload of size bytes.
func ServerFrameBytes(size int) int {
	return len(MaskedFrame(OpBinary, make([]byte, size))) - len(Mask)
}

// appendStamped appends template, a masked frame whose payload of size bytes
// begins with a stamp of zeros, with that stamp filled in.
func appendStamped(dst, template []byte, size int, seq uint64, now int64) []byte {
	at := len(dst) + len(template) - size
	dst = append(dst, template...)
	binary.LittleEndian.PutUint64(dst[at:], seq^mask64)
	binary.LittleEndian.PutUint64(dst[at+8:], uint64(now)^mask64)
	return dst
}

// ReadFrame reads one frame, which must fit r's buffer. Its payload is borrowed
// until the next read.
func ReadFrame(r *bufio.Reader) (Frame, error) {
	for need := 2; ; {
		b, err := r.Peek(need)
		if err != nil {
			return Frame{}, err
		}
		header, size, known, err := frameHeader(b)
		if err != nil {
			return Frame{}, err
		}
		if need = header; known {
			need += size
		}
		if known && len(b) >= need {
			_, f, _, err := wholeFrame(b)
			_, _ = r.Discard(need) // the frame that was peeked
			return f, err
		}
	}
}

// ClosedBy is the error of a connection that the server has closed.
func ClosedBy(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("the server closed without a code")
	}
	return fmt.Errorf("the server closed with %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}
