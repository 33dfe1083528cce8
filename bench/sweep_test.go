//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// TestSweep runs every combination on servers of their own, and finds the least.
func TestSweep(t *testing.T) {
	tests := map[string]struct {
		args []string
		want []string // loops, room shards, batch, ring
	}{
		"fanout": {
			[]string{"-load", "fanout", "-outstanding", "8", "-loops", "1,2", "-batch", "16,512"},
			[]string{"1 4 16 1024", "1 4 512 1024", "2 8 16 1024", "2 8 512 1024"},
		},
		"echo": {
			[]string{"-load", "echo", "-loops", "1", "-room-shards", "2,16", "-ring", "64,256"},
			[]string{"1 2 64 64", "1 2 64 256", "1 16 64 64", "1 16 64 256"},
		},
		"latency": {[]string{"-load", "latency", "-rate", "200", "-loops", "1", "-batch", "1"}, []string{"1 4 1 1024"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append([]string{"-duration", "60ms", "sweep", "-conns", "20", "-rounds", "2"}, tt.args...)...)
			require.Len(t, results, 1)
			rows := results[0].Rows
			var got []string
			highest := 0.0
			for i, row := range rows {
				got = append(got, fmt.Sprint(row["loops"], row["room_shards"], row["batch"], row["ring"]))
				assert.Zero(t, row["lost"])
				assert.LessOrEqual(t, row["server_us_least"], row["server_us"])
				assert.LessOrEqual(t, row["server_us"], row["server_us_most"])
				assert.Greater(t, row["per_second_least"], 0.0)
				assert.Greater(t, row["p99_ms"], 0.0)
				highest = max(highest, row["per_second"].(float64))
				if i > 0 {
					assert.GreaterOrEqual(t, row["server_us"], rows[i-1]["server_us"])
				}
			}
			assert.ElementsMatch(t, tt.want, got)
			assert.Contains(t, rows[0]["mark"], "least CPU")
			i := slices.IndexFunc(rows, func(row map[string]any) bool { return strings.Contains(row["mark"].(string), "highest rate") })
			require.GreaterOrEqual(t, i, 0)
			assert.InDelta(t, highest, rows[i]["per_second"], 0)
		})
	}
}

func TestSweepDefaults(t *testing.T) {
	base := newSession()
	base.loops = 4
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

// TestServerSettings asserts that what is swept reaches the library.
func TestServerSettings(t *testing.T) {
	cfg := ws.DefaultConfig()
	for _, opt := range managerOptions(&control.Config{MaxConnections: 1, Loops: 3, RoomShards: 16, Ring: 32, Batch: 128, Queue: 512}) {
		opt(&cfg)
	}
	assert.Equal(t, 3, cfg.Loops)
	assert.Equal(t, 16, cfg.RoomShards)
	assert.Equal(t, 32, cfg.Broadcast.QueueSize)
	assert.Equal(t, 128, cfg.Broadcast.BatchSize)
	assert.Equal(t, 512, cfg.MessageQueueSize)

	row := runBench(t, "fanout", "-conns", "30", "-batch", "1")[0].Rows[0]
	assert.Greater(t, row["writes"], 0.4, "two batches of one message are the most that a write takes")
}

func TestSweepArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such load":         {"sweep", "-load", "idle"},
		"a loop of nothing":    {"sweep", "-loops", "1,0"},
		"the same twice":       {"sweep", "-batch", "16,16"},
		"no list":              {"sweep", "-ring", "64,"},
		"too large":            {"sweep", "-batch", "4097"},
		"no rounds":            {"sweep", "-rounds", "0"},
		"two rates":            {"sweep", "-load", "latency", "-rate", "50,100", "-conns", "5", "-duration", "10ms", "-warmup", "0"},
		"shards no power of 2": {"sweep", "-load", "echo", "-room-shards", "3", "-conns", "5"},
		"rooms of nobody":      {"tune", "-conns", "5", "-rooms", "6"},
		"two rates of a load":  {"tune", "-rate", "5", "-deliveries", "50"},
		"backwards":            {"tune", "-rate", "-5"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, bench(t.Context(), args, new(bytes.Buffer)))
		})
	}
}

// TestTune runs it whole on a tiny load: every variation is there, none lost
// anything, and what is recommended is what the verdicts say.
func TestTune(t *testing.T) {
	for name, args := range map[string][]string{
		"one room":   {"-conns", "20", "-rate", "200", "-rounds", "5"},
		"many rooms": {"-conns", "33", "-rooms", "10", "-deliveries", "3300", "-rounds", "1", "-size", "64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			args := append([]string{"-json", "tune", "-duration", "40ms", "-warmup", "10ms", "-maxprocs", "2"}, args...)
			require.NoError(t, bench(t.Context(), args, &out))
			var got struct {
				Results []struct {
					Rows  []map[string]any
					Notes []string
				}
			}
			require.NoError(t, json.Unmarshal(out.Bytes(), &got))
			rows, notes := got.Results[0].Rows, strings.Join(got.Results[0].Notes, "\n")
			var options []string
			gains := false
			for _, row := range rows {
				options = append(options, fmt.Sprint(row["option"], row["loops"], row["room_shards"], row["batch"], row["ring"]))
				assert.Zero(t, row["lost"])
				assert.Greater(t, row["server_us"], 0.0)
				gains = gains || row["verdict"] == "gain"
			}
			want := []string{"-2 8 64 1024", "batch2 8 16 1024", "batch2 8 256 1024", "loops1 8 64 1024", "ring2 8 64 256", "ring2 8 64 4096"}
			if strings.Contains(name, "many") {
				want = append(want, "room-shards2 32 64 1024")
				assert.Contains(t, notes, "Fewer than 5 rounds")
			}
			assert.Equal(t, want, options[:len(want)])
			assert.Equal(t, gains, len(rows) > len(want), "what gains is measured again")
			last := rows[len(rows)-1]
			recommends := strings.Contains(notes, "ws.WithLoops") || strings.Contains(notes, "c.Broadcast.")
			assert.Equal(t, len(rows) > len(want) && last["verdict"] == "gain", recommends)
			assert.Equal(t, !recommends, strings.Contains(notes, "m, err := ws.NewManager()"))
		})
	}
}

func TestDescription(t *testing.T) {
	o := newTuneRun()
	o.conns, o.rooms, o.deliveries = 1000, 100, 5000
	d, err := o.description()
	require.NoError(t, err)
	assert.Equal(t, description{1000, 100, 512, 500}, d)
	assert.Equal(t, "1000 connections in 100 rooms of 10, 500 publishes/s of 512 B: 5000 deliveries/s", d.String())

	assert.Equal(t, d, d.scaled(1000))
	assert.Equal(t, description{250, 25, 512, 125}, d.scaled(255), "rooms of the same size, each as busy")
	assert.Equal(t, description{7, 1, 512, 5}, d.scaled(7), "not even one room fits")
	one := description{1_000_000, 1, 512, 4}
	assert.Equal(t, description{19_000, 1, 512, 4}, one.scaled(19_000))
}

// trialOf is a trial with the same figures in each round.
func trialOf(s setting, cpu, p99, lost float64) *trial {
	same := func(x float64) []float64 { return []float64{x, x, x, x, x} }
	return &trial{setting: s, cpu: same(cpu), rate: same(100), p99: same(p99), lost: lost}
}

// TestAdvice asserts what is chosen of trials, and how it is said.
func TestAdvice(t *testing.T) {
	base := newSession()
	base.maxprocs = 4
	d := description{20_000, 10, 100, 5}
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
	assert.Equal(t, setting{2, 16, 256, 1024}, a.setting)
	confirm := func(cpu float64) {
		f := judge([]variation{all[0], {setting: a.setting, option: "all"}}, []*trial{trials[0], trialOf(a.setting, cpu, 10, 0)})[1]
		a.confirmed = &f
	}
	confirm(7.5)
	assert.Equal(t, []string{
		"CPU time of the server for a delivery with all of these, measured again: 25.0 % less (25.0 to 25.0 % in 5 rounds).",
		"",
		"m, err := ws.NewManager(",
		"\tws.WithMaxConnections(21000), // needed: the default is 10000",
		"\tfunc(c *ws.Config) { c.Broadcast.BatchSize = 256 }, // larger batches let more messages share a write; alone 20.0 % less (20.0 to 20.0 % in 5 rounds)",
		"\tws.WithMessageQueueSize(1024), // without which the batch would be cut",
		"\tws.WithLoops(2), // fewer loops take more messages in one batch, and leave processors to publishers and handlers; alone 10.0 % less (10.0 to 10.0 % in 5 rounds)",
		")",
	}, a.lines(5))

	confirm(10)
	lines := strings.Join(a.lines(5), "\n")
	assert.Contains(t, lines, "keep the defaults")
	assert.NotContains(t, lines, "WithLoops")

	a = &advice{asked: description{2_000_000, 1000, 100, 500}, measured: d, base: all[0].setting, reached: 0.5}
	lines = strings.Join(a.lines(3), "\n")
	for _, part := range []string{"Scaled down", "50 % of the rate", "Fewer than 5 rounds", "keep the defaults", "WithMaxConnections(2100000)"} {
		assert.Contains(t, lines, part)
	}
}

// TestTry asserts that each setting runs once a round, with the queue it needs.
func TestTry(t *testing.T) {
	base, timing := newSession(), defaultTiming()
	settings := []setting{{1, 4, 64, 1024}, {2, 8, 256, 1024}}
	var queues []int
	trials, err := try(t.Context(), &base, settings, 3, &timing, func(_ context.Context, s *session) (figures, error) {
		queues = append(queues, s.queue)
		return figures{cpu: float64(s.loops), rate: 1, p99: float64(time.Millisecond), lost: 1}, nil
	})
	require.NoError(t, err)
	assert.Equal(t, []float64{1, 1, 1}, trials[0].cpu)
	assert.Equal(t, []float64{2, 2, 2}, trials[1].cpu)
	assert.InDelta(t, 3, trials[0].lost, 0)
	slices.Sort(queues)
	assert.Equal(t, []int{256, 256, 256, 1024, 1024, 1024}, queues, "as the batch needs")
}
