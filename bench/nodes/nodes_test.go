//go:build linux

package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/cluster"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
)

// TestMain is also the nodes and the servers of the brokers.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && (os.Args[1] == "serve" || os.Args[1] == "broker") {
		main()
		return
	}
	os.Exit(m.Run())
}

// rowsOf runs the command cluster, small and short, and returns the only row of each table.
func rowsOf(t *testing.T, duration time.Duration, args ...string) map[string]map[string]float64 {
	t.Helper()
	r := cluster.Command.New()
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	r.Flags(fs)
	require.NoError(t, fs.Parse(append([]string{
		"-nodes-binary", os.Args[0], "-duration", duration.String(), "-warmup", "20ms",
		"-conns", "36", "-rooms", "12", "-room-rate", "200",
	}, args...)))
	s := command.NewSession()
	s.ClientLoops = 1
	require.NoError(t, r.Validate(&s))
	tables, err := r.Run(t.Context(), &s)
	require.NoError(t, err)
	rows := make(map[string]map[string]float64)
	for _, table := range tables {
		require.Len(t, table.Rows, 1, table.Command)
		rows[strings.TrimPrefix(table.Command, "cluster-")] = table.Last()
	}
	return rows
}

// clusterTest is a broker, and the messages that it sends for each that it gets, in one room and in
// many rooms.
type clusterTest struct {
	broker, loads string
	history       bool
	room, rooms   float64
}

// TestCluster asserts that nothing is lost in a small and short run, and that the figures are there.
func TestCluster(t *testing.T) {
	for _, test := range []clusterTest{
		{"none", "room,rooms-rate,link", false, 0, 0},
		{"none", "rooms,link-rate", true, 0, 0},
		{control.NATS, "room,rooms-rate,link", false, 2, 2. / 3},
		{control.NATS, "room-rate,rooms", true, 4, 2}, // a publisher gets an answer
		{control.NATSFiles, "link", true, 4, 2},
		{control.Redis, "room-rate,rooms,link-rate", false, 3, 1},
		{control.Redis, "room,rooms-rate", true, 3, 1},
		{control.Sharded, "rooms", false, 3, 1},
	} {
		t.Run(fmt.Sprintf("%s, history %v", test.broker, test.history), func(t *testing.T) {
			t.Parallel()
			// A busy machine may have nothing to show for a short time.
			duration := 200 * time.Millisecond
			for ; duration < time.Minute; duration *= 4 {
				rows := rowsOf(t, duration, "-brokers", test.broker, "-loads", test.loads,
					fmt.Sprint("-history=", test.history))
				require.Len(t, rows, len(strings.Split(test.loads, ",")))
				if test.complete(t, rows) {
					return
				}
			}
			assert.Fail(t, "figures are missing")
		})
	}
}

// complete asserts that nothing was lost, and reports whether all figures are there.
func (test *clusterTest) complete(t *testing.T, rows map[string]map[string]float64) bool {
	keys := []string{"messages_per_second", "per_second", "nodes_us", "near_p50_ms", "near_p99_ms"}
	if test.room > 0 {
		keys = append(keys, "far_p50_ms", "far_p99_ms", "in", "out", "broker_per_delivery")
	}
	all := true
	for load, row := range rows {
		for _, key := range []string{"missing", "disordered", "dropped", "gaps"} {
			assert.Zero(t, row[key], "%s: %s", load, key)
		}
		for _, key := range keys {
			all = all && row[key] > 0
		}
		out := test.room
		if strings.HasPrefix(load, "rooms") {
			out = test.rooms
		}
		if row["in"] > 0 {
			assert.InEpsilon(t, out, row["out"]/row["in"], 0.3, load)
		}
	}
	return all
}
