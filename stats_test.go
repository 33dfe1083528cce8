package ws_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/engine"
)

// fillNumbers sets each number in v, a struct, to another value, and returns the next.
func fillNumbers(v reflect.Value, next int64) int64 {
	for _, f := range v.Fields() {
		next = fillNumber(f, next)
	}
	return next
}

func fillNumber(f reflect.Value, next int64) int64 {
	switch {
	case f.Kind() == reflect.Struct:
		return fillNumbers(f, next)
	case f.Kind() == reflect.Bool:
		return next
	case f.Kind() == reflect.Array:
		for i := range f.Len() {
			next = fillNumber(f.Index(i), next)
		}
		return next
	case f.CanInt():
		f.SetInt(next)
	default:
		f.SetUint(uint64(next))
	}
	return next + 1
}

// Each count of the engine is in LoopStats under the same name, and Add adds each.
func TestLoopStatsHaveAllCounts(t *testing.T) {
	var counts engine.ShardStats
	n := fillNumbers(reflect.ValueOf(&counts).Elem(), 1)
	require.Greater(t, n, int64(20))
	stats := ws.LoopStatsOf(counts)
	assert.EqualValues(t, numbersIn(counts), numbersIn(stats))

	var sum ws.LoopStats
	sum.Add(&stats)
	assert.Equal(t, stats, sum)
	sum.Add(&stats)
	for name, value := range numbersIn(sum) {
		want := 2 * numbersIn(stats)[name]
		if name == "OldestWait" || name == "LongestStall" {
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
		case f.Kind() == reflect.Array:
			for i := range f.Len() {
				found[fmt.Sprint(name, i)] = int64(f.Index(i).Uint())
			}
		case f.CanInt():
			found[name] = f.Int()
		default:
			found[name] = int64(f.Uint())
		}
	}
	return found
}

// isHistogram reports whether t is a histogram, which is no figure.
func isHistogram(t reflect.Type) bool {
	return t == reflect.TypeFor[ws.Times]() || t == reflect.TypeFor[ws.Sizes]()
}

// TestHistogramsAreWhole asserts that each histogram of Stats comes once, with its own name and counts.
func TestHistogramsAreWhole(t *testing.T) {
	st := ws.Stats{Routes: []ws.RouteStats{{Event: "a"}, {Event: "b"}}}
	next, fields := int64(1), 0
	for _, v := range []reflect.Value{
		reflect.ValueOf(&st.Total), reflect.ValueOf(&st.Routes[0]), reflect.ValueOf(&st.Routes[1]),
	} {
		for field, f := range v.Elem().Fields() {
			if isHistogram(field.Type) {
				next = fillNumber(f, next)
				fields++
			}
		}
	}
	names := make(map[string]bool)
	want := uint64(1)
	for h := range st.Histograms() {
		assert.NotEmpty(t, h.Help, h.Name)
		assert.False(t, names[h.Name+h.Event], h.Name)
		names[h.Name+h.Event] = true
		require.Len(t, h.Counts, len(h.Bounds)+1)
		for _, count := range h.Counts {
			assert.Equal(t, want, count, h.Name)
			want++
		}
		sum := h.Sum
		if strings.HasSuffix(h.Name, "_seconds") {
			sum *= 1e9
		} else {
			assert.True(t, strings.HasSuffix(h.Name, "_bytes"), h.Name)
		}
		assert.InDelta(t, want, sum, 1e-3, h.Name)
		want++
		assert.InDelta(t, h.Count(), float64(h.Counts[0]+h.Counts[13])*7, 0, h.Name)
	}
	assert.Len(t, names, fields)
}

// TestFiguresAreWhole asserts that each number of Stats is one figure, with its own name and value.
func TestFiguresAreWhole(t *testing.T) {
	st := ws.Stats{Loops: make([]ws.LoopStats, 2)}
	next := int64(1)
	v := reflect.ValueOf(&st).Elem()
	for field, f := range v.Fields() {
		if field.Name != "Total" && field.Name != "Loops" && field.Name != "Routes" {
			next = fillNumber(f, next)
		}
	}
	for i := range st.Loops {
		for field, f := range reflect.ValueOf(&st.Loops[i]).Elem().Fields() {
			if !isHistogram(field.Type) {
				next = fillNumber(f, next)
			}
		}
	}
	names := make(map[ws.Figure]bool)
	values := make(map[float64]string)
	for figure, value := range st.Figures() {
		assert.NotEmpty(t, figure.Help, figure.Name)
		assert.Equal(t, figure.Counter, strings.HasSuffix(figure.Name, "_total"), figure.Name)
		if strings.Contains(figure.Name, "_seconds") {
			value = math.Round(value * 1e9)
		}
		if !strings.HasSuffix(figure.Name, "_resting") && figure.Name != "draining" { // a bool
			assert.Empty(t, values[value], figure.Name)
			values[value] = figure.Name
		}
		assert.False(t, names[figure], figure.Name)
		names[figure] = true
	}
	for i := int64(1); i < next; i++ {
		assert.Contains(t, values, float64(i), "value %d is no figure", i)
	}
	for range st.Figures() {
		break // ends the sequence
	}
}
