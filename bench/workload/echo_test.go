//go:build linux

package workload

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/load"
)

// TestSchedule asserts that all connections together send evenly, each in turn.
func TestSchedule(t *testing.T) {
	const loops, conns, rate = 3, 10, 1000.0
	var due []int64
	for number := range loops {
		e := &echoing{until: load.Never, rate: rate, start: 77, number: number, loops: loops, conns: conns}
		for index := 0; index*loops+number < conns; index++ {
			for k := range uint64(4) {
				due = append(due, e.dueAt(index, k))
			}
		}
	}
	slices.Sort(due)
	require.Len(t, due, 4*conns)
	for i, at := range due {
		assert.EqualValues(t, 77+i*1_000_000, at)
	}
}
