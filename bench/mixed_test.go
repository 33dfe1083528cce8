//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMixed asserts that members get exactly what was said while they were in a
// room, though they come and go.
func TestMixed(t *testing.T) {
	for name, args := range map[string][]string{
		"native":      {"-loops", "3"},
		"http":        {"-path", "http", "-client-loops", "3"},
		"all at once": {"-conns", "1500", "-loops", "1", "-rate", "50", "-moving", "20", "-reconnecting", "20"}, // more than the ring holds
		"one room":    {"-conns", "9", "-rate", "2000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args = append([]string{"mixed", "-conns", "60", "-rate", "500", "-moving", "200", "-reconnecting", "100", "-duration", "400ms"}, args...)
			results := runBench(t, args...)
			require.Len(t, results[0].Rows, 1)
			row := results[0].Rows[0]
			assertClean(t, row)
			for _, key := range []string{"each", "server_us", "p50_ms", "moves", "reconnects"} {
				assert.Greater(t, row[key], 0.0, key)
			}
			assert.Zero(t, row["refused"])
		})
	}
}

// TestChatCounts asserts that the check of mixed finds what is wrong.
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
			l, c := &loop{}, &clientConn{state: chatEntering}
			chat := &chat{} // until is 0: nobody enters again
			for _, seq := range test.seqs {
				var head [16]byte
				for i := range 8 {
					head[i] = byte(seq >> (8 * i))
				}
				chat.frame(l, c, &frame{size: 16, head: head[:]}, 1)
			}
			assert.Equal(t, test.lost, l.lost.Load())
			assert.Equal(t, test.disordered, l.disordered.Load())
			assert.Equal(t, test.state, c.state)
		})
	}
}
