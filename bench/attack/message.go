//go:build linux

package attack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/load"
)

// Attacks with frames and messages.

// maxBytes is about the largest message that the server's defaults allow.
const maxBytes = 500_000

// requestFrame is a request, as one frame.
func requestFrame(event, id, data string) []byte {
	return load.MaskedFrame(load.OpText, requestText(event, id, data))
}

func requestText(event, id, data string) []byte {
	return fmt.Appendf(nil, `{"type":"request","event":"%s","request_id":"%s","data":%s}`, event, id, data)
}

// prepareRequestID returns a request whose ID would grow sixfold in an answer
// that encoding/json writes.
func prepareRequestID(*strike) any {
	return requestFrame("noop", "é"+strings.Repeat("<", maxBytes/2), `{}`)
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
var unfinishedFrame = load.MaskedFrame(load.OpBinary, make([]byte, maxBytes))

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
		err = a.write(load.MaskedFrame(load.OpPong, nil))
	}
	a.finish()
}

// violate breaks the protocol once and goes on sending.
func violate(s *strike, _ int) {
	broken := load.MaskedFrame(load.OpText, []byte("hello"))
	broken[0] |= 0x70
	var more []byte
	for range 16 {
		more = append(more, load.MaskedFrame(load.OpBinary, make([]byte, 4096))...)
	}
	s.reconnecting("", func(a *attacker) {
		for err := a.write(broken); err == nil && !s.over(); {
			err = a.write(more)
		}
	})
}

// pings sends pings, and connects again when the server ends the connection.
func pings(s *strike, _ int) {
	s.sendAlways(bytes.Repeat(load.MaskedFrame(load.OpPing, []byte("ping")), 1000))
}

// fragments begins a message and goes on with empty fragments.
func fragments(s *strike, _ int) {
	first, empty := load.MaskedFrame(load.OpText, []byte("{")), load.MaskedFrame(0, nil)
	first[0], empty[0] = load.OpText, 0
	more := bytes.Repeat(empty, 5000)
	s.reconnecting("", func(a *attacker) {
		for err := a.write(first); err == nil && !s.over(); {
			err = a.write(more)
		}
	})
}

// prepareOversized returns the head of a frame of 1 GiB with the first part of it, a
// message of two fragments that is too long, and a ping that is longer than a control
// frame may be.
func prepareOversized(*strike) any {
	huge := load.MaskedFrame(load.OpBinary, make([]byte, 70_000))
	binary.BigEndian.PutUint64(huge[2:], 1<<30)
	first := load.MaskedFrame(load.OpBinary, make([]byte, maxBytes))
	first[0] = load.OpBinary // not the last
	rest := load.MaskedFrame(0, make([]byte, 100_000))
	return [][]byte{huge, append(first, rest...), load.MaskedFrame(load.OpPing, make([]byte, 126))}
}

func oversized(s *strike, i int) {
	messages := s.shared.([][]byte)
	s.paced(i, 60, func(k int) bool {
		if a, err := s.open("", ""); err == nil {
			_ = a.write(messages[k%len(messages)])
			a.finish()
		}
		return true
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
