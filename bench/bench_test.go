//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is also the server process of the end-to-end tests, which is this
// program with other arguments.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		exit(serve(os.Args[2], os.Stdin, os.Stdout))
	}
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
		want = append(want, seen{opBinary, size, string(payload[:min(size, stampBytes)])})
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
			require.Equal(t, []seen{{opBinary, 300, string(payload[:stampBytes])}}, got, "cut at %d", i)
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
		assert.Equal(t, make([]byte, size-stampBytes), payload[stampBytes:])
	}
}

func TestHistogramQuantiles(t *testing.T) {
	var h, other histogram
	var values []int64
	for range 20_000 {
		v := rand.Int64N(1 << (1 + rand.IntN(40)))
		values = append(values, v)
		if len(values)%2 == 0 {
			h.record(v)
		} else {
			other.record(v)
		}
	}
	h.add(&other)
	slices.Sort(values)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := values[max(0, int(q*float64(len(values)))-1)]
		assert.InDelta(t, want, int64(h.quantile(q)), float64(want)/subBuckets+1, "quantile %v", q)
	}
	for v := uint64(0); v < 1<<20; v += 1 + v/100 {
		b := bucketOf(v)
		assert.GreaterOrEqual(t, bucketTop(b), v)
		assert.Equal(t, b, bucketOf(bucketTop(b)))
		assert.Equal(t, b+1, bucketOf(bucketTop(b)+1))
	}
}

func TestSlope(t *testing.T) {
	x, y := []float64{1000, 2000, 5000}, []float64{700_000, 1_300_000, 3_100_000}
	assert.InDelta(t, 600, slope(x, y), 1e-6)
	assert.InDelta(t, 600, ends(x, y), 1e-6)
}

// TestCommands runs every command, small, against a real server process.
func TestCommands(t *testing.T) {
	for name, args := range map[string][]string{
		"idle":        {"-steps", "10,50", "-quiet", "10ms", "idle", "-join"},
		"echo":        {"echo", "-conns", "50", "-inflight", "4"},
		"echo http":   {"echo", "-conns", "50", "-path", "http", "-size", "70000"},
		"fanout":      {"fanout", "-conns", "50", "-sweep"},
		"latency":     {"latency", "-conns", "50", "-rate", "200"},
		"one member":  {"fanout", "-conns", "1"},
		"three loops": {"fanout", "-conns", "50", "-client-loops", "3", "-loops", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if args[0] != "-steps" {
				args = append(args, "-duration", "200ms", "-warmup", "20ms")
			}
			require.NoError(t, bench(t.Context(), append([]string{"-json"}, args...), &out))
			var got struct {
				Machine machine
				Results []struct {
					Command string
					Rows    []map[string]any
				}
			}
			require.NoError(t, json.Unmarshal(out.Bytes(), &got))
			require.NotEmpty(t, got.Results)
			for _, result := range got.Results {
				require.NotEmpty(t, result.Rows)
				for _, row := range result.Rows {
					if _, ok := row["per_second"]; !ok {
						continue
					}
					assert.Greater(t, row["per_second"], 0.0)
					for _, wrong := range []string{"missing", "disordered", "dropped"} {
						if n, ok := row[wrong]; ok {
							assert.Zero(t, n, wrong)
						}
					}
				}
			}
		})
	}
}

func TestArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command": {"frobnicate"},
		"short payload":   {"echo", "-size", "15"},
		"falling steps":   {"idle", "-steps", "10,5"},
		"unknown path":    {"echo", "-path", "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, bench(t.Context(), args, new(bytes.Buffer)))
		})
	}
}

func TestMonotonicNow(t *testing.T) {
	a := monotonicNow()
	<-time.After(time.Millisecond) // time itself is what is measured
	assert.GreaterOrEqual(t, monotonicNow()-a, int64(time.Millisecond))
}
