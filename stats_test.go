package ws_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/engine"
)

// fillNumbers sets each number in v, a struct, to another value, and returns the next.
func fillNumbers(v reflect.Value, next int64) int64 {
	for _, f := range v.Fields() {
		switch {
		case f.Kind() == reflect.Struct:
			next = fillNumbers(f, next)
		case f.CanInt():
			f.SetInt(next)
			next++
		default:
			f.SetUint(uint64(next))
			next++
		}
	}
	return next
}

// Each count of the engine is in LoopStats under the same name, and Add adds each.
func TestLoopStatsHaveAllCounts(t *testing.T) {
	var counts engine.ShardStats
	n := fillNumbers(reflect.ValueOf(&counts).Elem(), 1)
	require.Greater(t, n, int64(20))
	stats := ws.LoopStatsOf(&counts)
	assert.EqualValues(t, numbersIn(counts), numbersIn(stats))

	var sum ws.LoopStats
	sum.Add(&stats)
	assert.Equal(t, stats, sum)
	sum.Add(&stats)
	for name, value := range numbersIn(sum) {
		want := 2 * numbersIn(stats)[name]
		if name == "OldestWait" {
			want /= 2
		}
		assert.Equal(t, want, value, name)
	}
}

// numbersIn returns the numbers in a struct by their names.
func numbersIn(s any) map[string]int64 {
	found := make(map[string]int64)
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			for inner, value := range numbersIn(f.Interface()) {
				found[name+"."+inner] = value
			}
		case f.CanInt():
			found[name] = f.Int()
		default:
			found[name] = int64(f.Uint())
		}
	}
	return found
}
