//go:build linux

package workload

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/bench/load"
)

// TestChatCounts asserts that the check of mixed finds every fault.
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
			chat := &chat{} // until is 0: nobody enters again
			for _, seq := range test.seqs {
				var head [16]byte
				for i := range 8 {
					head[i] = byte(seq >> (8 * i))
				}
				chat.Frame(l, c, &load.Frame{Size: 16, Head: head[:]}, 1)
			}
			assert.Equal(t, test.lost, l.Lost.Load())
			assert.Equal(t, test.disordered, l.Disordered.Load())
			assert.Equal(t, test.state, c.State)
		})
	}
}
