//go:build linux

package chat

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/bench/load"
)

// TestChatCounts asserts that every fault is found.
func TestChatCounts(t *testing.T) {
	const answer, left = 1 << 63, 1 << 62 // control.AnswerBit, control.LeftBit
	for name, test := range map[string]struct {
		seqs             []uint64
		lost, disordered uint64
		state            uint8
	}{
		"all":                        {[]uint64{answer | 3, 3, 4, answer | left | 5}, 0, 0, chatAway},
		"messages before the answer": {[]uint64{3, answer | 3, 4, answer | left | 5}, 0, 0, chatAway},
		"messages after the answer":  {[]uint64{answer | 3, 3, answer | left | 5, 4}, 0, 0, chatAway},
		"none":                       {[]uint64{answer | 3, answer | left | 3}, 0, 0, chatAway},
		"first lost":                 {[]uint64{answer | 3, 5, answer | left | 6}, 2, 0, chatAway},
		"first lost, answer late":    {[]uint64{5, answer | 3, answer | left | 6}, 2, 0, chatAway},
		"lost between":               {[]uint64{answer | 3, 3, 5, answer | left | 6}, 1, 0, chatAway},
		"last lost":                  {[]uint64{answer | 3, 3, answer | left | 5}, 0, 0, chatEnding},
		"twice":                      {[]uint64{answer | 3, 3, 3, answer | left | 4}, 0, 1, chatAway},
		"too early":                  {[]uint64{2, answer | 3, 3, answer | left | 4}, 0, 1, chatAway},
	} {
		t.Run(name, func(t *testing.T) {
			l, c := &load.Loop{}, &load.Conn{State: chatEntering}
			receive(new(traffic), l, c, test.seqs) // until is 0: nobody enters again
			assert.Equal(t, test.lost, l.Lost.Load())
			assert.Equal(t, test.disordered, l.Disordered.Load())
			assert.Equal(t, test.state, c.State)
		})
	}
}

// TestResumeCounts asserts that a client that comes back, or asks for the last number,
// finds the messages that it lacks.
func TestResumeCounts(t *testing.T) {
	const answer = 1 << 63 // control.AnswerBit
	for name, test := range map[string]struct {
		from             uint8
		seqs             []uint64
		lost, disordered uint64
		state            uint8
	}{
		"comes back, none lost":        {chatResuming, []uint64{answer | 3, 3}, 0, 0, chatIn},
		"comes back, two lost":         {chatResuming, []uint64{answer | 5, 5}, 2, 0, chatIn},
		"comes back, numbers restart":  {chatResuming, []uint64{answer | 1}, 0, 1, chatIn},
		"asks, has all":                {chatAsking, []uint64{answer | 3}, 0, 0, chatIn},
		"asks, the last comes later":   {chatAsking, []uint64{answer | 5, 3, 4}, 0, 0, chatIn},
		"asks, the last does not come": {chatAsking, []uint64{answer | 5, 3}, 0, 0, chatAwaiting},
		"asks, one lost":               {chatAsking, []uint64{answer | 5, 4}, 1, 0, chatIn},
	} {
		t.Run(name, func(t *testing.T) {
			l, c := &load.Loop{}, &load.Conn{State: test.from, Next: 3}
			receive(new(traffic), l, c, test.seqs)
			assert.Equal(t, test.lost, l.Lost.Load())
			assert.Equal(t, test.disordered, l.Disordered.Load())
			assert.Equal(t, test.state, c.State)
		})
	}
}

// receive hands messages of these numbers over.
func receive(chat *traffic, l *load.Loop, c *load.Conn, seqs []uint64) {
	for _, seq := range seqs {
		var head [16]byte
		binary.LittleEndian.PutUint64(head[:], seq)
		chat.Frame(l, c, &load.Frame{Size: 16, Head: head[:]}, 1)
	}
}
