//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
)

// form is how the messages of echo look: it writes stamps into requests, and
// reads them from answers.
type form interface {
	append(dst []byte, seq uint64, due int64) []byte
	stamp(f *frame) (seq uint64, due int64, ok bool)
}

// binaryForm is a binary message that begins with its stamp, and comes back as
// it was. Immutable after newBinaryForm.
type binaryForm struct {
	template []byte
	size     int
}

func newBinaryForm(size int) *binaryForm {
	return &binaryForm{maskedFrame(opBinary, make([]byte, size)), size}
}

func (b *binaryForm) append(dst []byte, seq uint64, due int64) []byte {
	return appendStamped(dst, b.template, b.size, seq, due)
}

func (b *binaryForm) stamp(f *frame) (seq uint64, due int64, ok bool) {
	if f.size != b.size {
		return 0, 0, false
	}
	return f.seq(), f.sent(), true
}

// jsonForm is a request of the event "echo". Its numbers have jsonDigits digits
// each, so that they can be replaced in a masked frame, and found in an answer
// without a decoder. Immutable after newJSONForm.
type jsonForm struct {
	template      []byte
	payload       int // where it begins in template
	id, seq, sent int // where the numbers begin in the payload
}

const (
	jsonRequest = `{"type":"request","event":"echo","request_id":"%d","data":{"seq":%d,"sent":%d,"pad":"%s"}}`
	jsonDigits  = 19
	// jsonBase is added to each number, so that it has jsonDigits digits.
	jsonBase = 1_000_000_000_000_000_000
)

var (
	jsonSeq  = []byte(`"seq":`)
	jsonSent = []byte(`"sent":`)
)

// minJSON is the length of a request without padding.
var minJSON = len(fmt.Sprintf(jsonRequest, jsonBase, jsonBase, jsonBase, ""))

// newJSONForm returns requests of size bytes, at least minJSON.
func newJSONForm(size int) *jsonForm {
	text := fmt.Appendf(nil, jsonRequest, jsonBase, jsonBase, jsonBase, strings.Repeat("x", size-minJSON))
	frame := maskedFrame(opText, text)
	return &jsonForm{
		template: frame, payload: len(frame) - len(text),
		id:   bytes.Index(text, []byte(`"request_id":"`)) + len(`"request_id":"`),
		seq:  bytes.Index(text, jsonSeq) + len(jsonSeq),
		sent: bytes.Index(text, jsonSent) + len(jsonSent),
	}
}

func (j *jsonForm) append(dst []byte, seq uint64, due int64) []byte {
	at := len(dst) + j.payload
	dst = append(dst, j.template...)
	putDigits(dst[at:], j.id, seq)
	putDigits(dst[at:], j.seq, seq)
	putDigits(dst[at:], j.sent, uint64(due))
	return dst
}

// putDigits writes a number, masked, to an offset of the payload.
func putDigits(payload []byte, at int, n uint64) {
	n += jsonBase
	for i := at + jsonDigits - 1; i >= at; i-- {
		payload[i] = byte('0'+n%10) ^ mask[i&3]
		n /= 10
	}
}

func (j *jsonForm) stamp(f *frame) (seq uint64, due int64, ok bool) {
	seq, ok1 := findDigits(f.head, jsonSeq)
	sent, ok2 := findDigits(f.head, jsonSent)
	return seq, int64(sent), ok1 && ok2
}

// findDigits reads the number behind key.
func findDigits(b, key []byte) (uint64, bool) {
	at := bytes.Index(b, key)
	if at < 0 || len(b) < at+len(key)+jsonDigits {
		return 0, false
	}
	var n uint64
	for _, c := range b[at+len(key):][:jsonDigits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n - jsonBase, n >= jsonBase
}
