package ws_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// simulatedRoom is a room on a simulated network, whose peers read at once.
type simulatedRoom struct {
	*ws.Simnet
	*ws.Manager
	clients []*ws.Client
}

func startSimulatedRoom(tb testing.TB, members int, opts ...ws.RoomOption) *simulatedRoom {
	tb.Helper()
	r := &simulatedRoom{Simnet: ws.NewSimnet()}
	r.Manager = harness.NewManager(tb, ws.WithListenAddr(""), ws.WithSimnet(r.Simnet), ws.WithMaxConnections(members+1))
	go func() { _ = r.Run() }() // ends with the test
	_, err := r.CreateRoom("r", nil, opts...)
	require.NoError(tb, err)
	r.Connect(members, []byte(harness.UpgradeRequest("/ws", "")))
	r.Wait()
	r.RangeClients(func(c *ws.Client) bool {
		r.clients = append(r.clients, c)
		return true
	})
	require.Len(tb, r.clients, members)
	return r
}

// cpuTime returns the CPU time of this process, which other work of the machine changes less than the
// time that passes.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var ru syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &ru))
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkPublishEvent publishes to 1,000 members, in rounds of outstanding messages that several
// publishers share, in a room without and with a history.
func BenchmarkPublishEvent(b *testing.B) {
	const members = 1000
	text := strings.Repeat("x", 400) // about 512 bytes with the envelope
	for _, size := range []struct{ publishers, outstanding int }{
		{1, 1},
		{1, 4},
		{1, 16},
		{1, 64},
		{2, 2},
		{2, 8},
		{2, 32},
		{2, 64},
		{4, 4},
		{4, 16},
		{4, 64},
		{8, 8},
		{8, 32},
		{8, 64},
		{8, 128},
	} {
		for name, opts := range map[string][]ws.RoomOption{"off": nil, "on": {ws.WithHistory(ws.History{})}} {
			title := fmt.Sprintf("publishers=%d/outstanding=%d/history=%s", size.publishers, size.outstanding, name)
			b.Run(title, func(b *testing.B) {
				r := startSimulatedRoom(b, members, opts...)
				for _, c := range r.clients {
					require.NoError(b, c.JoinRoom("r"))
				}
				b.ReportAllocs()
				rounds, before := 0, cpuTime(b)
				for b.Loop() {
					var publishers sync.WaitGroup
					for range size.publishers {
						publishers.Go(func() {
							for range size.outstanding / size.publishers {
								_, err := r.PublishEvent(context.Background(), "r", "n", text)
								assert.NoError(b, err)
							}
						})
					}
					publishers.Wait()
					r.Wait()
					rounds++
				}
				deliveries := float64(rounds * size.outstanding * members)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
				b.ReportMetric(float64(cpuTime(b)-before)/deliveries, "cpu-ns/delivery")
			})
		}
	}
}

// BenchmarkResume has 10,000 clients come back at once, each with 100 messages missed.
func BenchmarkResume(b *testing.B) {
	const members, missed = 10_000, 100
	r := startSimulatedRoom(b, members, ws.WithHistory(ws.History{Bytes: -1}))
	text := strings.Repeat("x", 400)
	for range missed {
		_, err := r.PublishEvent(context.Background(), "r", "n", text)
		require.NoError(b, err)
	}
	at, err := r.RoomPosition("r")
	require.NoError(b, err)
	since := ws.Since{Position: ws.Position{Epoch: at.Epoch}}
	b.ReportAllocs()
	rounds := 0
	for b.Loop() {
		for _, c := range r.clients {
			_, err := c.JoinRoomFrom("r", since)
			require.NoError(b, err)
		}
		r.Wait()
		for _, c := range r.clients {
			c.LeaveRoom("r")
		}
		r.Wait()
		rounds++
	}
	require.EqualValues(b, rounds*members*missed, r.Manager.Stats().Replayed)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*members*missed), "ns/message")
}

// BenchmarkCatchUp stalls 500 of 10,000 members while 3,000 messages are published, 60 s at 50 a second,
// and lets them read again. It reports the memory of a stalled member, without the history, and the
// time for each message that they catch up with.
func BenchmarkCatchUp(b *testing.B) {
	const members, stalled, missed = 10_000, 500, 3000
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	r := startSimulatedRoom(b, members, ws.WithHistory(ws.History{Size: 2 * missed, Bytes: -1}))
	for _, c := range r.clients {
		require.NoError(b, c.JoinRoom("r"))
	}
	r.Wait()
	text := strings.Repeat("x", 400)
	publishAll := func() {
		for range missed {
			_, err := r.PublishEvent(context.Background(), "r", "n", text)
			require.NoError(b, err)
			r.Wait() // as 50 a second come: each in a turn of its own
		}
	}
	publishAll() // fills the free queues of the loops, which all members take from
	var memory int64
	var catching time.Duration
	rounds := 0
	for b.Loop() {
		for peer := range stalled {
			r.Stall(peer)
		}
		before := heap() - r.Manager.Stats().HistoryMemory
		publishAll()
		memory += heap() - r.Manager.Stats().HistoryMemory - before
		begun := time.Now()
		for peer := range stalled {
			r.Resume(peer)
		}
		r.Wait()
		catching += time.Since(begun)
		rounds++
	}
	stats := r.Manager.Stats()
	require.Zero(b, stats.Gaps)
	require.Zero(b, stats.Total.Drops)
	require.EqualValues(b, (rounds+1)*members*missed, stats.Total.MessagesOut)
	b.ReportMetric(float64(memory)/float64(rounds*stalled), "B/stalled")
	b.ReportMetric(float64(catching.Nanoseconds())/float64(rounds*stalled*missed), "ns/message")
	b.ReportMetric(catching.Seconds()/float64(rounds), "s/catch-up")
}

// TestHistoryMemory compares Stats.HistoryMemory with the growth of the heap.
func TestHistoryMemory(t *testing.T) {
	const rooms, messages = 200, 100
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	text := strings.Repeat("x", 400)
	var grown, counted int64
	for range 5 { // the rest of another test may take or free memory meanwhile
		r := startSimulatedRoom(t, 1)
		before := heap()
		for i := range rooms {
			id := fmt.Sprint(i)
			_, err := r.CreateRoom(id, nil, ws.WithHistory(ws.History{}))
			require.NoError(t, err)
			for range messages {
				_, err := r.PublishEvent(context.Background(), id, "n", text)
				require.NoError(t, err)
			}
		}
		grown, counted = heap()-before, r.Manager.Stats().HistoryMemory
		t.Logf("heap %d bytes, counted %d, %d for each message", grown, counted, counted/(rooms*messages))
		if math.Abs(float64(grown-counted)) <= 0.15*float64(counted) {
			break
		}
	}
	require.InEpsilon(t, counted, grown, 0.15)
}
