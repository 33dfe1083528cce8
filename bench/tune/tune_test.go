//go:build linux

package tune

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/load"
)

func TestSweepDefaults(t *testing.T) {
	base := command.NewSession()
	base.Loops = 4
	all, err := newSweepRun().combinations(baseSetting(&base))
	require.NoError(t, err)
	var got []string
	for _, s := range all {
		got = append(got, fmt.Sprint(s.loops, s.shards, s.batch, s.ring))
	}
	assert.Equal(t, []string{
		"1 4 16 1024", "1 4 64 1024", "1 4 256 1024", "2 8 16 1024", "2 8 64 1024", "2 8 256 1024",
		"4 16 16 1024", "4 16 64 1024", "4 16 256 1024",
	}, got)
	assert.Equal(t, []int{1, 2, 4, 6}, doublings(6))
	assert.Equal(t, []int{1}, doublings(1))
}

func TestDescription(t *testing.T) {
	o := newTuneRun()
	o.conns, o.rooms, o.deliveries = 1000, 100, 5000
	d, err := o.description()
	require.NoError(t, err)
	assert.Equal(t, description{1000, 100, 512, 500, 0}, d)
	assert.Equal(t, "1000 connections in 100 rooms of 10, 500 publishes/s of 512 B: 5000 deliveries/s", d.String())

	assert.Equal(t, d, d.scaled(1000))
	assert.Equal(t, description{250, 25, 512, 125, 0}, d.scaled(255), "rooms of the same size, each as busy")
	assert.Equal(t, description{7, 1, 512, 5, 0}, d.scaled(7), "not even one room fits")
	one := description{1_000_000, 1, 512, 4, 0}
	assert.Equal(t, description{19_000, 1, 512, 4, 0}, one.scaled(19_000))
}

// trialOf is a trial with the same figures in each round.
func trialOf(s setting, cpu, p99, lost float64) *trial {
	same := func(x float64) []float64 { return []float64{x, x, x, x, x} }
	return &trial{setting: s, cpu: same(cpu), rate: same(100), p99: same(p99), lost: lost}
}

// TestAdvice asserts which options the advice chooses, and its text.
func TestAdvice(t *testing.T) {
	base := command.NewSession()
	base.MaxProcs = 4
	d := description{20_000, 10, 100, 5, 0}
	all := variations(baseSetting(&base).resolved(), d)
	cost := map[string][3]float64{ // CPU, p99, lost; else as the default, 10, 10, 0
		"loops=1 room-shards=16 batch=64 ring=1024":  {5, 20, 0}, // late
		"loops=2 room-shards=16 batch=64 ring=1024":  {9, 10, 0}, // good
		"loops=4 room-shards=16 batch=16 ring=1024":  {9.5, 10, 0},
		"loops=4 room-shards=16 batch=256 ring=1024": {8, 9, 0},  // better
		"loops=4 room-shards=16 batch=64 ring=256":   {5, 10, 1}, // loses
	}
	var trials []*trial
	for _, v := range all {
		c, ok := cost[v.String()]
		if !ok {
			c = [3]float64{10, 10, 0}
		}
		trials = append(trials, trialOf(v.setting, c[0], c[1], c[2]))
	}
	found := judge(all, trials)
	verdicts := map[string]string{}
	for _, f := range found {
		verdicts[f.variation.String()] = f.verdict()
	}
	assert.Equal(t, "the default", found[0].verdict())
	assert.Equal(t, "p99 is 100 % higher", verdicts["loops=1 room-shards=16 batch=64 ring=1024"])
	assert.Equal(t, "gain", verdicts["loops=2 room-shards=16 batch=64 ring=1024"])
	assert.Equal(t, "loses messages", verdicts["loops=4 room-shards=16 batch=64 ring=256"])
	assert.Equal(t, "none (noise)", verdicts["loops=4 room-shards=16 batch=64 ring=4096"])

	a := &advice{asked: d, measured: d, base: all[0].setting, chosen: choose(found), reached: 1}
	a.setting = combine(a.base, a.chosen)
	assert.Equal(t, setting{2, 16, 256, 1024, 0}, a.setting)
	confirm := func(cpu float64) {
		f := judge([]variation{all[0], {setting: a.setting, option: "all"}},
			[]*trial{trials[0], trialOf(a.setting, cpu, 10, 0)})[1]
		a.confirmed = &f
	}
	confirm(7.5)
	assert.Equal(t, []string{
		"CPU time of the server for a delivery with all of these, measured again: 25.0 % less (25.0 to 25.0 % in 5 rounds).",
		"",
		"m, err := ws.NewManager(",
		"\tws.WithMaxConnections(21000), // needed: the default is 10000",
		"\tfunc(c *ws.Config) { c.Broadcast.BatchSize = 256 }, // larger batches let more messages share a write; " +
			"alone 20.0 % less (20.0 to 20.0 % in 5 rounds)",
		"\tws.WithMessageQueueSize(1024), // without which the batch would be cut",
		"\tws.WithLoops(2), // fewer loops take more messages in one batch, and leave processors to publishers and " +
			"handlers; alone 10.0 % less (10.0 to 10.0 % in 5 rounds)",
		")",
	}, a.lines(5))

	confirm(10)
	lines := strings.Join(a.lines(5), "\n")
	assert.Contains(t, lines, "keep the defaults")
	assert.NotContains(t, lines, "WithLoops")

	a = &advice{asked: description{2_000_000, 1000, 100, 500, 0}, measured: d, base: all[0].setting, reached: 0.5}
	lines = strings.Join(a.lines(3), "\n")
	for _, part := range []string{
		"Scaled down", "50 % of the rate", "Fewer than 5 rounds", "keep the defaults",
		"WithMaxConnections(2100000)",
	} {
		assert.Contains(t, lines, part)
	}
}

// TestTry asserts that each setting runs once a round, with the queue it needs.
func TestTry(t *testing.T) {
	base, timing := command.NewSession(), load.DefaultTiming()
	settings := []setting{{1, 4, 64, 1024, 0}, {2, 8, 256, 1024, 0}}
	var queues []int
	trials, err := try(t.Context(), &base, settings, 3, &timing,
		func(_ context.Context, s *command.Session) (figures, error) {
			queues = append(queues, s.Queue)
			return figures{cpu: float64(s.Loops), rate: 1, p99: float64(time.Millisecond), lost: 1}, nil
		})
	require.NoError(t, err)
	assert.Equal(t, []float64{1, 1, 1}, trials[0].cpu)
	assert.Equal(t, []float64{2, 2, 2}, trials[1].cpu)
	assert.InDelta(t, 3, trials[0].lost, 0)
	slices.Sort(queues)
	assert.Equal(t, []int{256, 256, 256, 1024, 1024, 1024}, queues, "as the batch needs")
}
