//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/qi-realtime/ws/bench/control"
)

// Payload is how the messages of echo look: it writes stamps into requests, and
// reads them from answers.
type Payload interface {
	Append(dst []byte, seq uint64, due int64) []byte
	Stamp(f *Frame) (seq uint64, due int64, ok bool)
}

// BinaryPayload is a binary message that begins with its stamp, and comes back as
// it was. Immutable after NewBinaryPayload.
type BinaryPayload struct {
	template []byte
	Size     int
}

// NewBinaryPayload returns messages of size bytes, at least control.StampBytes.
func NewBinaryPayload(size int) *BinaryPayload {
	return &BinaryPayload{MaskedFrame(OpBinary, make([]byte, size)), size}
}

// Append implements Payload.
func (b *BinaryPayload) Append(dst []byte, seq uint64, due int64) []byte {
	return appendStamped(dst, b.template, b.Size, seq, due)
}

// Stamp implements Payload.
func (b *BinaryPayload) Stamp(f *Frame) (seq uint64, due int64, ok bool) {
	if f.Size != b.Size {
		return 0, 0, false
	}
	return f.Seq(), f.Sent(), true
}

// PublishPayload is a message that the server publishes (control.PublishByte): a room's
// number, a stamp, padding. Immutable after NewPublishPayload.
type PublishPayload struct {
	template []byte
	size     int
}

// NewPublishPayload returns messages whose members get size bytes, at least control.StampBytes.
func NewPublishPayload(size int) *PublishPayload {
	message := append([]byte{control.PublishByte}, make([]byte, 4+size)...)
	return &PublishPayload{MaskedFrame(OpBinary, message), len(message)}
}

// Append appends a message to a room. The server writes its number into the stamp.
func (p *PublishPayload) Append(dst []byte, room int32, due int64) []byte {
	at := len(dst) + len(p.template) - p.size
	dst = append(dst, p.template...)
	head := [1 + 4 + control.StampBytes]byte{control.PublishByte}
	binary.LittleEndian.PutUint32(head[1:], uint32(room))
	binary.LittleEndian.PutUint64(head[5+8:], uint64(due))
	for i, c := range head {
		dst[at+i] = c ^ Mask[i&3]
	}
	return dst
}

// JSONPayload is a request of the event "echo". Its numbers have JSONDigits digits
// each, so that they can be replaced in a masked frame, and found in an answer
// without a decoder. Immutable after NewJSONPayload.
type JSONPayload struct {
	template      []byte
	payload       int // where it begins in template
	id, seq, sent int // where the numbers begin in the payload
}

// Requests in JSON. Each number has JSONDigits digits.
const (
	jsonRequest = `{"type":"request","event":"echo","request_id":"%d","data":{"seq":%d,"sent":%d,"pad":"%s"}}`
	JSONDigits  = control.NumberDigits
	// JSONBase is added to each number, so that it has JSONDigits digits.
	JSONBase = control.NumberBase
)

var (
	jsonSeq  = []byte(`"seq":`)
	jsonSent = []byte(`"sent":`)
)

// MinJSON is the length of a request without padding.
var MinJSON = len(fmt.Sprintf(jsonRequest, JSONBase, JSONBase, JSONBase, ""))

// NewJSONPayload returns requests of size bytes, at least MinJSON.
func NewJSONPayload(size int) *JSONPayload {
	text := fmt.Appendf(nil, jsonRequest, JSONBase, JSONBase, JSONBase, strings.Repeat("x", size-MinJSON))
	frame := MaskedFrame(OpText, text)
	return &JSONPayload{
		template: frame, payload: len(frame) - len(text),
		id:   bytes.Index(text, []byte(`"request_id":"`)) + len(`"request_id":"`),
		seq:  bytes.Index(text, jsonSeq) + len(jsonSeq),
		sent: bytes.Index(text, jsonSent) + len(jsonSent),
	}
}

// Append implements Payload.
func (j *JSONPayload) Append(dst []byte, seq uint64, due int64) []byte {
	at := len(dst) + j.payload
	dst = append(dst, j.template...)
	PutDigits(dst[at:], j.id, seq)
	PutDigits(dst[at:], j.seq, seq)
	PutDigits(dst[at:], j.sent, uint64(due))
	return dst
}

// PutDigits writes a number, masked, to an offset of the payload.
func PutDigits(payload []byte, at int, n uint64) {
	n += JSONBase
	for i := at + JSONDigits - 1; i >= at; i-- {
		payload[i] = byte('0'+n%10) ^ Mask[i&3]
		n /= 10
	}
}

// Stamp implements Payload.
func (j *JSONPayload) Stamp(f *Frame) (seq uint64, due int64, ok bool) {
	seq, ok1 := FindDigits(f.Head, jsonSeq)
	sent, ok2 := FindDigits(f.Head, jsonSent)
	return seq, int64(sent), ok1 && ok2
}

// FindDigits reads the number behind key.
func FindDigits(b, key []byte) (uint64, bool) {
	at := bytes.Index(b, key)
	if at < 0 || len(b) < at+len(key)+JSONDigits {
		return 0, false
	}
	var n uint64
	for _, c := range b[at+len(key):][:JSONDigits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n - JSONBase, n >= JSONBase
}

// Number reads the number behind key, 0 if there is none. There may be spaces before it.
func Number(b, key []byte) (n uint64) {
	_, b, _ = bytes.Cut(b, key)
	for _, c := range bytes.TrimLeft(b, " ") {
		if c < '0' || c > '9' {
			return n
		}
		n = 10*n + uint64(c-'0')
	}
	return n
}
