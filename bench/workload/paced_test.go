//go:build linux

package workload

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/bench/load"
)

// TestDeviation asserts that a pace is compared with an even one.
func TestDeviation(t *testing.T) {
	const window = 20 * time.Second
	var even, burst, late []int64
	for i := range int64(200) {
		at := 7 + i*int64(window)/200
		even, burst = append(even, at), append(burst, 7)
		late = append(late, at+int64(time.Second)/2)
	}
	assert.Zero(t, deviation(even, 7, window))
	assert.InDelta(t, paceBins-1, deviation(burst, 7, window), 1e-9)
	assert.InDelta(t, 0.5, deviation(late, 7, window), 1e-9)
	assert.Equal(t, 10, most(even, time.Second))
	assert.Equal(t, 200, most(burst, time.Second))
}

// TestMoveMissing asserts that messages which a client should have had before its end count.
func TestMoveMissing(t *testing.T) {
	const second, margin = int64(time.Second), int64(300 * time.Millisecond)
	m := &moving{sent: []int64{1 * second, 2 * second, 3 * second}}
	for name, test := range map[string]struct {
		next, must uint64
		ended      int64
		missing    uint64
	}{
		"all before its end":          {2, 0, 3 * second, 0},
		"the last two":                {1, 0, 4 * second, 2},
		"one is on its way":           {2, 0, 3*second + margin/2, 0},
		"an answer has named another": {2, 3, 3 * second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m.moves = []move{{must: test.must, ended: test.ended}}
			l := &load.Loop{Conns: []load.Conn{{Next: test.next}}}
			assert.Equal(t, test.missing, m.missing(l, margin))
		})
	}
}
