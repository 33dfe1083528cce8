//go:build linux

package attack

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/qi-realtime/ws/bench/load"
)

// Attacks with requests to handlers.

// numbered is a batch of requests that have a number each, so that it is new
// each time. Not safe for concurrent use.
type numbered struct {
	frames []byte
	at     []int // where the digits begin, and ...
	phase  []int // ... where they stand in their payload
	next   uint64
}

// add adds a request in whose data the digits of load.JSONBase stand. Requests of a
// group have one number.
func (n *numbered) add(event, data string) {
	text := requestText(event, "1", data)
	frame := load.MaskedFrame(load.OpText, text)
	digits := bytes.Index(text, fmt.Append(nil, uint64(load.JSONBase)))
	n.at = append(n.at, len(n.frames)+len(frame)-len(text)+digits)
	n.phase = append(n.phase, digits)
	n.frames = append(n.frames, frame...)
}

// batch returns the requests with the next numbers, group requests with each.
func (n *numbered) batch(group int) []byte {
	for k, at := range n.at {
		number := n.next + uint64(k/group) + load.JSONBase
		for i := load.JSONDigits - 1; i >= 0; i-- {
			n.frames[at+i] = byte('0'+number%10) ^ load.Mask[(n.phase[k]+i)&3]
			number /= 10
		}
	}
	n.next += uint64(len(n.at) / group)
	return n.frames
}

// numberedRoom is the data of a request for a room with a number in its name.
func numberedRoom(i int, padding string) string {
	return fmt.Sprintf(`{"room":"attack-%d-%d%s"}`, i, uint64(load.JSONBase), padding)
}

func prepareRoomNames(*strike) any { return strings.Repeat("n", maxBytes) }

func roomNames(s *strike, i int) {
	var n numbered
	n.add("join", numberedRoom(i, s.shared.(string)))
	n.add("leave", numberedRoom(i, s.shared.(string)))
	s.reconnecting("", func(a *attacker) {
		s.paced(i, 250, func(int) bool { return a.write(n.batch(2)) == nil })
	})
}

// newRooms joins and leaves rooms that nobody has had.
func newRooms(s *strike, i int) {
	var n numbered
	for range 50 {
		n.add("join", numberedRoom(i, ""))
		n.add("leave", numberedRoom(i, ""))
	}
	s.reconnecting("", func(a *attacker) {
		for !s.over() && a.write(n.batch(2)) == nil {
		}
	})
}

// manyRooms joins rooms and stays.
func manyRooms(s *strike, i int) {
	var n numbered
	for range 100 {
		n.add("join", numberedRoom(i, ""))
	}
	s.reconnecting("", func(a *attacker) {
		for !s.over() && a.write(n.batch(1)) == nil {
		}
	})
}

func logFlood(s *strike, i int) {
	event := []string{"fail", "panic"}[i%2]
	s.sendAlways(bytes.Repeat(requestFrame(event, "1", `{}`), 100))
}

// prepareKeys returns a request one of whose keys is long and escaped.
func prepareKeys(*strike) any {
	return load.MaskedFrame(load.OpText, []byte(`{"type":"request","event":"noop","request_id":"1","`+
		strings.Repeat(`\u0061`, maxBytes/6)+`":1,"data":{}}`))
}

func jsonKeys(s *strike, i int) { s.sendPaced(i, 16, "") }

func prepareSlices(*strike) any {
	return requestFrame("items", "1", "["+strings.Repeat("{},", maxBytes/3-40)+"{}]")
}

func jsonSlices(s *strike, i int) { s.sendPaced(i, 3, "") }

func prepareNesting(*strike) any {
	return requestFrame("noop", "1", strings.Repeat("[", maxBytes/2)+strings.Repeat("]", maxBytes/2-100))
}

func jsonNesting(s *strike, i int) { s.sendPaced(i, 20, "") }

func flood(s *strike, _ int) { s.sendAlways(bytes.Repeat(requestFrame("inline", "1", `{}`), 100)) }

// aboveRate sends 2,500 requests a second.
func aboveRate(s *strike, i int) {
	batch := bytes.Repeat(requestFrame("noop", "1", `{}`), 50)
	s.reconnecting("", func(a *attacker) {
		s.paced(i, 1000, func(int) bool { return a.write(batch) == nil })
	})
}
