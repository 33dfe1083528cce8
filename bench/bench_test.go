//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// TestMain is also the other processes of the end-to-end tests, which are this
// program with other arguments.
func TestMain(m *testing.M) {
	hidden()
	os.Exit(m.Run())
}

// serverFrame is payload as the server sends it.
func serverFrame(op byte, payload []byte) []byte {
	masked := maskedFrame(op, payload)
	header := masked[:len(masked)-len(payload)-len(mask)]
	header[1] &= 0x7F
	return append(slices.Clone(header), payload...)
}

type seen struct {
	op   byte
	size int
	head string
}

// parseAll parses stream in pieces that cut yields the sizes of.
func parseAll(t *testing.T, stream []byte, cut func() int) []seen {
	t.Helper()
	var p parser
	var got []seen
	for len(stream) > 0 {
		n := min(cut(), len(stream))
		piece := stream[:n]
		stream = stream[n:]
		for len(piece) > 0 {
			rest, f, ok, err := p.next(piece)
			require.NoError(t, err)
			if ok {
				got = append(got, seen{f.op, f.size, string(f.head)})
			} else {
				require.Empty(t, rest)
			}
			piece = rest
		}
	}
	assert.Zero(t, p.n, "nothing is left between frames")
	assert.Zero(t, p.skipped, "nothing is left between frames")
	return got
}

func TestParserCutAnywhere(t *testing.T) {
	var stream []byte
	var want []seen
	payload := make([]byte, 70_000)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for _, size := range []int{0, 1, 15, 16, 17, 125, 126, 512, 65_535, 65_536, 0, 70_000, 3} {
		stream = append(stream, serverFrame(opBinary, payload[:size])...)
		want = append(want, seen{opBinary, size, string(payload[:min(size, control.StampBytes)])})
	}
	cuts := map[string]func() int{
		"whole":        func() int { return len(stream) },
		"byte by byte": func() int { return 1 },
		"at random":    func() int { return 1 + rand.IntN(40) },
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, want, parseAll(t, stream, cut))
		})
	}
	t.Run("in two, at each byte", func(t *testing.T) {
		short := serverFrame(opBinary, payload[:300])
		for i := 1; i < len(short); i++ {
			first := true
			got := parseAll(t, short, func() int {
				if first {
					first = false
					return i
				}
				return len(short)
			})
			require.Equal(t, []seen{{opBinary, 300, string(payload[:control.StampBytes])}}, got, "cut at %d", i)
		}
	})
}

func TestParserRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"masked":     {0x82, 0x80, 0, 0, 0, 0},
		"fragmented": {0x02, 0x00},
		"reserved":   {0xC2, 0x00},
		"oversized":  {0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := new(parser).next(b)
			require.ErrorIs(t, err, errBadFrame)
			var p parser
			for _, c := range b {
				if _, _, _, err = p.next([]byte{c}); err != nil {
					break
				}
			}
			require.ErrorIs(t, err, errBadFrame)
		})
	}
}

func TestStampSurvivesMasking(t *testing.T) {
	for _, size := range []int{16, 125, 126, 512, 65_536} {
		template := maskedFrame(opBinary, make([]byte, size))
		b := appendStamped([]byte("before"), template, size, 7, 1234567890123)[len("before"):]
		require.Len(t, b, len(template))
		payload := slices.Clone(b[len(b)-size:])
		for i := range payload {
			payload[i] ^= mask[i&3]
		}
		assert.Equal(t, uint64(7), binary.LittleEndian.Uint64(payload))
		assert.Equal(t, uint64(1234567890123), binary.LittleEndian.Uint64(payload[8:]))
		assert.Equal(t, make([]byte, size-control.StampBytes), payload[control.StampBytes:])
	}
}

// TestJSONForm asserts that a request is what its stamp says, and that the stamp
// is found in answers.
func TestJSONForm(t *testing.T) {
	for _, size := range []int{minJSON, 512, 70_000} {
		j := newJSONForm(size)
		b := j.append([]byte("before"), 7, 1234567890123)[len("before"):]
		require.Len(t, b, len(j.template))
		text := slices.Clone(b[len(b)-size:])
		for i := range text {
			text[i] ^= mask[i&3]
		}
		var req struct {
			Type, Event string
			RequestID   string `json:"request_id"`
			Data        control.EchoData
		}
		require.NoError(t, json.Unmarshal(text, &req))
		assert.Equal(t, "request", req.Type)
		assert.Equal(t, "echo", req.Event)
		assert.Equal(t, strconv.Itoa(jsonBase+7), req.RequestID)
		assert.Len(t, req.Data.Pad, size-minJSON)
		data, err := json.Marshal(map[string]any{"code": 200, "data": req.Data})
		require.NoError(t, err)
		seq, due, ok := j.stamp(&frame{size: len(data), head: data})
		assert.True(t, ok)
		assert.Equal(t, uint64(7), seq)
		assert.Equal(t, int64(1234567890123), due)
	}
	for _, wrong := range []string{"", `{"seq":1,"sent":2}`, `"seq":1000000000000000007,"sent":100000000000000000`} {
		_, _, ok := new(jsonForm).stamp(&frame{head: []byte(wrong)})
		assert.False(t, ok, wrong)
	}
}

func TestHistogram(t *testing.T) {
	h, other := newHistogram(), newHistogram()
	for d := range int64(1000) {
		h.record(d * 2000)
		other.record(d*2000 + 1000)
	}
	h.add(other)
	assert.EqualValues(t, 2000, h.count())
	assert.InDelta(t, time.Millisecond, h.quantile(0.5), float64(time.Microsecond)*2)
	h.record(-1)
	h.record(int64(24 * time.Hour))
	assert.InEpsilon(t, longest, h.max(), 0.001)
}

func TestSlope(t *testing.T) {
	x, y := []float64{1000, 2000, 5000}, []float64{700_000, 1_300_000, 3_100_000}
	assert.InDelta(t, 600, slope(x, y), 1e-6)
	assert.InDelta(t, 600, ends(x, y), 1e-6)
}

// result is one table.
type result struct {
	Command string
	Rows    []map[string]any
}

// runBench runs one command line, shortly.
func runBench(t *testing.T, args ...string) []result {
	t.Helper()
	args = append([]string{"-json", "-duration", "200ms", "-warmup", "20ms"}, args...)
	var out bytes.Buffer
	require.NoError(t, bench(t.Context(), args, &out))
	var got struct {
		Machine machine
		Results []result
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.NotEmpty(t, got.Results)
	return got.Results
}

// TestCommands runs every command, small, against a real server process.
func TestCommands(t *testing.T) {
	for name, args := range map[string][]string{
		"idle":        {"-steps", "10,50", "-quiet", "10ms", "idle", "-join"},
		"echo":        {"echo", "-conns", "50", "-inflight", "4"},
		"echo http":   {"echo", "-conns", "50", "-path", "http", "-size", "70000"},
		"echo rate":   {"echo", "-conns", "50", "-rate", "2000,4000", "-client-loops", "3"},
		"echo modes":  {"echo", "-conns", "30", "-mode", "raw,pooled,json,json-inline"},
		"echo JSON":   {"echo", "-conns", "50", "-mode", "json,json-inline", "-rate", "400", "-size", "5000"},
		"fanout":      {"fanout", "-conns", "50", "-sweep"},
		"latency":     {"latency", "-conns", "50", "-rate", "200"},
		"rates":       {"latency", "-conns", "50", "-rate", "100,200,400"},
		"tls":         {"tls", "-conns", "10", "-sizes", "16,70000"},
		"rooms":       {"fanout", "-conns", "55", "-rooms", "10", "-sweep", "-rounds", "2"},
		"rooms, rate": {"fanout", "-conns", "55", "-rooms", "10", "-rate", "300,500"},
		"one member":  {"fanout", "-conns", "1"},
		"three loops": {"fanout", "-conns", "50", "-client-loops", "3", "-loops", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, result := range runBench(t, args...) {
				require.NotEmpty(t, result.Rows)
				for _, row := range result.Rows {
					if _, ok := row["per_second"]; !ok {
						continue
					}
					assertClean(t, row)
				}
			}
		})
	}
}

// assertClean asserts that nothing was lost that should have come.
func assertClean(t *testing.T, row map[string]any) {
	t.Helper()
	assert.Greater(t, row["per_second"], 0.0)
	wrong := []string{"missing", "disordered", "dropped"}
	if stalled, ok := row["stalled"]; ok && stalled.(float64) > 0 {
		wrong = wrong[:2]
		assert.Greater(t, row["dropped"], 0.0, "stalled members drop what is published")
	}
	for _, key := range wrong {
		if n, ok := row[key]; ok {
			assert.Zero(t, n, key)
		}
	}
}

// TestEchoRate asserts that messages are sent at the rate, and when they are due.
func TestEchoRate(t *testing.T) {
	t.Parallel()
	results := runBench(t, "echo", "-conns", "100", "-rate", "3000", "-duration", "500ms")
	row := results[0].Rows[0]
	assert.InEpsilon(t, 3000, row["per_second"], 0.2)
	assert.Zero(t, row["missing"])
	for _, key := range []string{"server_us", "write_calls", "read_calls", "p50_us", "late_p99_us"} {
		assert.Greater(t, row[key], 0.0, key)
	}
	assert.GreaterOrEqual(t, row["max_us"], row["p999_us"])
	assert.GreaterOrEqual(t, row["p999_us"], row["p50_us"])
}

// TestSchedule asserts that all connections together send evenly, each in turn.
func TestSchedule(t *testing.T) {
	const loops, conns, rate = 3, 10, 1000.0
	var due []int64
	for number := range loops {
		e := &echoing{until: never, rate: rate, start: 77, number: number, loops: loops, conns: conns}
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

// TestSourceAddresses asserts that connections beyond the first 20,000 come from
// addresses of their own, and that these work.
func TestSourceAddresses(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	to := &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for n, want := range map[int]string{0: "127.0.0.1", 19_999: "127.0.0.1", 20_000: "127.0.0.2", 1_000_000: "127.0.0.51", 20_000 * 255: "127.0.1.0"} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, bindSource(fd, n))
		require.NoError(t, unix.Connect(fd, to))
		c, err := ln.Accept()
		require.NoError(t, err)
		assert.Equal(t, want, c.RemoteAddr().(*net.TCPAddr).IP.String())
		require.NoError(t, c.Close())
		require.NoError(t, unix.Close(fd))
	}
}

// Commands that take long are run with small counts above: here with their own.
func TestDefaultSteps(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSession()
	_, err := newIdleRun().run(ctx, &s)
	require.ErrorIs(t, err, context.Canceled)
}

func TestMedian(t *testing.T) {
	assert.Zero(t, median(nil))
	assert.InDelta(t, 3.0, median([]float64{9, 1, 3}), 0)
	assert.InDelta(t, 2.5, median([]float64{9, 2, 1, 3}), 0)
}

// TestStalled compares a room without and with stalled members: four rows, and
// two of their ratios.
func TestStalled(t *testing.T) {
	for name, args := range map[string][]string{
		"fanout":  {"fanout", "-sweep=false"},
		"latency": {"latency", "-rate", "300"},
		"rooms":   {"fanout", "-rooms", "4", "-rate", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append(args, "-conns", "41", "-stalled", "12.5", "-compare", "-rounds", "2", "-queue", "32")...)
			require.Len(t, results, 2)
			var stalled []any
			for _, row := range results[0].Rows {
				assertClean(t, row)
				stalled = append(stalled, row["stalled"])
			}
			assert.Equal(t, []any{0.0, 5.0, 0.0, 5.0}, stalled)
			require.Len(t, results[1].Rows, 1)
			for _, key := range []string{"server_us", "per_second", "last_p50", "last_p99"} {
				assert.Greater(t, results[1].Rows[0][key], 0.0, key)
			}
		})
	}
}

// TestSlow asserts that what was published is held by every client, and once,
// and that slow members cost the others nothing.
func TestSlow(t *testing.T) {
	for name, size := range map[string]int{"small frames": 1000, "frames beyond a socket's buffer": 200_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, "slow", "-conns", "40", "-size", strconv.Itoa(size), "-stalled", "5", "-trickle", "10", "-rate", "100")
			require.Len(t, results[0].Rows, 2)
			all, last := results[0].Rows[0], results[0].Rows[1]
			assert.GreaterOrEqual(t, all["held"], float64(slowMessages+1), "each had one before")
			assert.InDelta(t, slowMessages, last["held"], 0)
			assert.InDelta(t, serverFrameBytes(size)*slowMessages, last["copies_bytes"], 0)
			assert.Less(t, last["heap_bytes"], last["copies_bytes"])
			if size > 1000 {
				return // healthy members need not keep up with this
			}
			require.Len(t, results, 3)
			require.Equal(t, "slow-beside", results[1].Command)
			require.Len(t, results[1].Rows, 2)
			for i, row := range results[1].Rows {
				assertClean(t, row)
				assert.InDelta(t, 2*i, row["stalled"], 0)
				assert.InDelta(t, 4*i, row["trickling"], 0)
			}
			require.Len(t, results[2].Rows, 1)
		})
	}
}

func TestFair(t *testing.T) {
	t.Parallel()
	results := runBench(t, "fair", "-conns", "30")
	require.Len(t, results[0].Rows, 1)
	row := results[0].Rows[0]
	assert.InDelta(t, 1, row["loops"], 0)
	assert.Zero(t, row["missing"]) // members that get no processor may drop
	for _, key := range []string{"per_second", "echoes_per_second", "p50_us", "max_us"} {
		assert.Greater(t, row[key], 0.0, key)
	}
}

// TestSim asserts that all that is simulated arrives, and nothing else.
func TestSim(t *testing.T) {
	t.Parallel()
	results := runBench(t, "sim", "-steps", "200,1000", "-rooms", "3", "-loops", "2")
	require.Len(t, results, 3)
	memory, work, ratios := results[0].Rows, results[1].Rows, results[2].Rows
	require.Len(t, memory, 2)
	for i, conns := range []float64{200, 1000} {
		assert.InDelta(t, conns, memory[i]["conns"], 0)
		assert.InDelta(t, conns/simStalledShare, memory[i]["stalled"], 0)
		assert.Greater(t, memory[i]["heap_bytes_rooms"], memory[i]["heap_bytes_room"])
		assert.Greater(t, memory[i]["heap_bytes_room"], memory[i]["heap_bytes"])
		n := float64(rounds(int(conns)))
		// All of 2x3 publishes to one room one by one, of batches, of rooms of 1,000
		// and of 10; and what the stalled ones held.
		batches := float64(simBatch * max(1, simLeast/simBatch/int(conns)))
		queued := conns / simStalledShare * float64(ws.DefaultConfig().MessageQueueSize)
		assert.InDelta(t, conns*(6*n+batches+2*n)+queued, work[i]["deliveries"], 0)
		assert.InDelta(t, conns*n, work[i]["pings"], 0)
		assert.Zero(t, work[i]["dropped"])
		for _, m := range simWork {
			assert.Greater(t, work[i][m.key()], 0.0, m.key())
		}
	}
	require.Len(t, ratios, len(simMemory)+len(simWork))
	for _, row := range ratios {
		assert.Greater(t, row["ratio"], 0.0, row["metric"])
	}
}

func TestArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command":    {"frobnicate"},
		"short payload":      {"echo", "-size", "15"},
		"falling steps":      {"idle", "-steps", "10,5"},
		"unknown mode":       {"echo", "-mode", "raw,xml"},
		"short request":      {"echo", "-mode", "json", "-size", "100"},
		"none in flight":     {"echo", "-inflight", "1,0"},
		"unknown path":       {"echo", "-path", "tls"},
		"rate of nothing":    {"latency", "-rate", "4,"},
		"all slow":           {"slow", "-stalled", "50", "-trickle", "50"},
		"no room":            {"sim", "-steps", "10", "-rooms", "0"},
		"all stalled":        {"fanout", "-stalled", "100"},
		"nothing to compare": {"latency", "-compare"},
		"empty rooms":        {"fanout", "-conns", "5", "-rooms", "6"},
		"parts of echo":      {"echo", "-procs", "2"},
		"no such load":       {"compare", "-load", "echo16,tango"},
		"no peers":           {"compare", "-peers-binary", "/nowhere/peers"},
		"no rooms":           {"fanout", "-rooms", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, bench(t.Context(), args, new(bytes.Buffer)))
		})
	}
}
