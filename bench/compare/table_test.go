//go:build linux

package compare

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/contenders"
)

// TestCompareSummary has libraries that win, lose, and lose messages.
func TestCompareSummary(t *testing.T) {
	load := compareLoad{name: "x", measures: []measure{byCPU, byRate}}
	c := newComparison(load, []contenders.Contender{
		{Name: contenders.Ours},
		{Name: "fast"},
		{Name: "lossy"},
		{Name: "broken"},
	})
	run := func(cpu, rate, missing float64) *libraryRun {
		return &libraryRun{row: map[string]float64{"server_us": cpu, "per_second": rate, "missing": missing}}
	}
	c.runs = [][]*libraryRun{
		{run(2, 100, 0), run(4, 200, 0), run(3, 150, 0)},
		{run(1, 150, 0), run(3, 100, 0), run(2, 120, 0)},
		{run(0.1, 900, 0), run(0.1, 900, 7), run(0.1, 900, 0)},
		{run(1, 1, 0), {err: errors.New("gone\nat once")}, run(1, 1, 0)},
	}
	rows := c.table().Rows
	statuses := make([]any, 0, len(rows))
	for _, row := range rows {
		statuses = append(statuses, row[len(row)-1])
	}
	assert.Equal(t, []any{"ok", "ok", "lost 7 messages", "failed in 1 of 3 rounds: gone"}, statuses)
	// The median of 1/2, 3/4 and 2/3.
	assert.InDelta(t, 2.0/3, c.ratio(1, "server_us"), 1e-9)
	assert.InDelta(t, 0.8, c.ratio(1, "per_second"), 1e-9, "1.5, 0.5, 0.8")
	assert.InDelta(t, (0.5+1.0/3)/2, c.ratio(3, "server_us"), 1e-9, "1/2 and 1/3: only rounds that both got through")
	low, high := c.spread(0, "server_us")
	assert.Equal(t, [2]float64{2, 4}, [2]float64{low, high})
	s := newSummary()
	c.summarize(s)
	require.Len(t, s.Rows, 2)
	assert.Equal(t, []any{
		"x", byCPU.name, "fast", 2.0, contenders.Ours, 3.0, 1.5, 3.0,
		"ws is number 2 of 2: fast is 1.50x better",
	}, s.Rows[0])
	assert.Equal(t, []any{"x", byRate.name, contenders.Ours, 150.0, "fast", 120.0, 1.25, 150.0, "ws is best"}, s.Rows[1])
}
