package inspect_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/inspect"
)

// A ranking holds the first entries of the sorted list of all.
func TestRankingIsTheHeadOfAll(t *testing.T) {
	for _, n := range []int{0, 1, inspect.MaxRanked, inspect.MaxRanked + 1, 5000} {
		type entry struct {
			score float64
			id    string
		}
		var all []entry
		var ranking inspect.Ranking
		for i := range n {
			e := entry{float64(rand.IntN(200) - 20), fmt.Sprint(i)}
			ranking.Add(e.score, e.id)
			if e.score > 0 {
				all = append(all, e)
			}
		}
		slices.SortFunc(all, func(a, b entry) int {
			return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
		})
		want := []string{}
		for _, e := range all[:min(len(all), inspect.MaxRanked)] {
			want = append(want, e.id)
		}
		assert.Equal(t, want, ranking.Sorted(), "%d entries", n)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h inspect.History
	began := time.UnixMilli(1e12)
	for i := range 1000 {
		h.Add(began.Add(time.Duration(i) * 900 * time.Millisecond))
	}
	times := h.Times()
	assert.Len(t, times, 300)
	assert.Equal(t, began.Add(999*900*time.Millisecond), times[len(times)-1])

	later := began.Add(time.Hour) // nobody asked for long
	h.Add(later)
	assert.Equal(t, []time.Time{later}, h.Times())
}

func TestMatchAddress(t *testing.T) {
	for _, tt := range []struct {
		want, address string
		match, ok     bool
	}{
		{"192.0.2.1", "192.0.2.1:5000", true, true},
		{" 192.0.2.1 ", "192.0.2.1:5000", true, true},
		{"192.0.2.1", "192.0.2.11:5000", false, true},
		{"192.0.2.1:5000", "192.0.2.1:5000", true, true},
		{"192.0.2.1:500", "192.0.2.1:5000", false, true},
		{"::ffff:192.0.2.1", "192.0.2.1:5000", true, true},
		{"2001:DB8:0::1", "[2001:db8::1]:5000", true, true},
		{"[2001:db8::1]", "[2001:db8::1]:5000", true, true},
		{"[2001:db8::1]:5000", "[2001:db8::1]:5000", true, true},
		{"2001:db8::1", "[2001:db8::11]:5000", false, true},
		{"192.0.2.1", "", false, true},
		{"192.0.2", "192.0.2.1:5000", false, false},
		{"localhost", "127.0.0.1:5000", false, false},
	} {
		match, ok := inspect.MatchAddress(tt.want, tt.address)
		assert.Equal(t, tt.ok, ok, tt.want)
		assert.Equal(t, tt.match, match, "%s and %s", tt.want, tt.address)
	}
}
