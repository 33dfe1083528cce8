//go:build linux && perf

package workload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
)

// TestPerf holds figures against the limits. Run it with -tags perf -v to see
// all of them.
func TestPerf(t *testing.T) {
	got := map[string]float64{}
	for _, m := range []struct {
		name    string
		measure func(t *testing.T, got map[string]float64)
	}{
		{"codec", perfCodec},
		{"envelope", perfEnvelope},
		{"join and leave", perfJoin},
		{"upgrade", perfUpgrade},
		{"idle", perfIdle},
		{"echo", perfEcho},
		{"fanout", perfFanout},
	} {
		for range 4 { // others on the machine may disturb a round; a fault exceeds its limit in all
			round := map[string]float64{}
			if !t.Run(m.name, func(t *testing.T) { m.measure(t, round) }) {
				t.FailNow()
			}
			for name, v := range round {
				if least, ok := got[name]; ok {
					v = min(v, least)
				}
				got[name] = v
			}
			if within(got) {
				break
			}
		}
	}
	for _, l := range limits {
		v, ok := got[l.name]
		delete(got, l.name)
		require.True(t, ok, "%s is not measured", l.name)
		t.Logf("%-52s %10.4f, at most %g", l.name, v, l.max)
		assert.LessOrEqual(t, v, l.max, "%s; the limit: %s", l.name, l.why)
	}
	assert.Empty(t, got, "each figure has a limit")
}

// within reports whether the figures that have been measured so far hold.
func within(got map[string]float64) bool {
	return !slices.ContainsFunc(limits, func(l limit) bool { return got[l.name] > l.max })
}

// allocations returns how many objects and bytes this process allocates for each
// of n calls of f: the least of three times, since others may allocate, too.
func allocations(n int, f func()) (objects, size float64) {
	f() // objects that are made once
	for i := range 3 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			f()
		}
		runtime.ReadMemStats(&after)
		o, s := float64(after.Mallocs-before.Mallocs)/float64(n), float64(after.TotalAlloc-before.TotalAlloc)/float64(n)
		if i == 0 || s < size {
			objects, size = o, s
		}
	}
	return objects, size
}

func perfCodec(t *testing.T, got map[string]float64) {
	var d codec.Decoder
	stream := load.MaskedFrame(load.OpBinary, make([]byte, 512))
	got["decode: allocations"], got["decode: bytes"] = allocations(100_000, func() {
		if _, _, ok, err := d.Next(stream, 1<<20); !ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	got["decode, in two reads: allocations"], got["decode, in two reads: bytes"] = allocations(100_000, func() {
		_, _, _, _ = d.Next(stream[:100], 1<<20)
		if _, _, ok, err := d.Next(stream[100:], 1<<20); !ok || err != nil {
			t.Fatal(ok, err)
		}
		d.Done()
	})
}

// localServer is a server in this process with one connection.
type localServer struct {
	*ws.Manager
	conn   net.Conn
	client *ws.Client
}

func startLocal(t *testing.T) *localServer {
	t.Helper()
	s := &localServer{}
	m, err := ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithHandlerMode(ws.Inline))
	require.NoError(t, err)
	type said struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	require.NoError(t, ws.Handle(m, "say", func(c *ws.Client, req *said) (*said, error) {
		s.client = c // read once the answer is here
		return req, nil
	}))
	s.Manager = m
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // ended by Shutdown, below
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		assert.NoError(t, m.Shutdown(ctx))
		assert.NoError(t, <-ran)
	})
	require.NotNil(t, m.Addr())
	s.conn, err = net.Dial("tcp", m.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { s.conn.Close() })
	require.NoError(t, s.conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(s.conn, "GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(t, err)
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		_, err := s.conn.Read(b)
		require.NoError(t, err, "%s", head)
	}
	require.Contains(t, string(head), " 101 ")
	return s
}

// say sends a request to the typed handler and reads the answer into b, which
// keeps it from allocating here.
func (s *localServer) say(t *testing.T, request, b []byte) {
	if _, err := s.conn.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s.conn, b[:2]); err != nil {
		t.Fatal(err)
	}
	size := int(b[1])
	if size == 126 {
		if _, err := io.ReadFull(s.conn, b[:2]); err != nil {
			t.Fatal(err)
		}
		size = int(b[0])<<8 | int(b[1])
	}
	if _, err := io.ReadFull(s.conn, b[:size]); err != nil {
		t.Fatal(err)
	}
}

var sayRequest = []byte(`{"type":"request","event":"say","request_id":"req_1",` +
	`"data":{"room":"lobby","text":"hello, everybody"},"timestamp":1707552000}`)

func perfEnvelope(t *testing.T, got map[string]float64) {
	var e envelope.Request
	got["envelope, parsed: allocations"], got["envelope, parsed: bytes"] = allocations(100_000, func() {
		if err := envelope.Parse(sayRequest, &e); err != nil {
			t.Fatal(err)
		}
	})
	s := startLocal(t)
	request, b := load.MaskedFrame(1, sayRequest), make([]byte, 4096)
	got["envelope, typed handler: allocations"], got["envelope, typed handler: bytes"] = allocations(5000,
		func() { s.say(t, request, b) })
}

func perfJoin(t *testing.T, got map[string]float64) {
	s := startLocal(t)
	s.say(t, load.MaskedFrame(1, sayRequest), make([]byte, 4096))
	if _, err := s.CreateRoom("lobby", nil); err != nil { // so that it stays in between
		t.Fatal(err)
	}
	got["join and leave: allocations"], got["join and leave: bytes"] = allocations(20_000, func() {
		if err := s.client.JoinRoom("lobby"); err != nil {
			t.Fatal(err)
		}
		s.client.LeaveRoom("lobby")
	})
}

func perfUpgrade(t *testing.T, got map[string]float64) {
	const first, conns = 1000, 3000 // the first ones make the loops' own objects
	s := perfSession()
	srv, g, stop, err := s.Start(t.Context(), s.Path, conns, control.Config{}, func(int) load.Traffic { return silent{} })
	require.NoError(t, err)
	defer stop()
	require.NoError(t, g.Connect(t.Context(), first))
	warm, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	before, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	require.NoError(t, g.Connect(t.Context(), conns))
	after, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	const n = conns - first
	got["accept and upgrade: allocations"] = rise(warm.Mallocs, before.Mallocs, after.Mallocs) / n
	got["accept and upgrade: bytes"] = rise(warm.TotalAlloc, before.TotalAlloc, after.TotalAlloc) / n
	got["accept and upgrade: write calls"] = rise(warm.WriteCalls, before.WriteCalls, after.WriteCalls) / n
}

func perfIdle(t *testing.T, got map[string]float64) {
	o := NewIdleRun()
	o.Steps, o.Quiet, o.Join = "1000,2000,4000", 200*time.Millisecond, true
	tables, err := o.Run(t.Context(), perfSession())
	require.NoError(t, err)
	steps, slopes := tables[0], tables[1]
	got["idle: heap bytes for each connection"] = figure(t, slopes, 0, "heap_bytes")
	got["idle: heap objects for each connection"] = figure(t, slopes, 0, "objects")
	got["idle: goroutines for each connection"] = figure(t, steps, 2, "goroutines") - figure(t, steps, 0, "goroutines")
}

// figure returns a cell of a table.
func figure(t *testing.T, of *result.Table, row int, key string) float64 {
	t.Helper()
	i := slices.IndexFunc(of.Columns, func(c result.Column) bool { return c.Key() == key })
	require.GreaterOrEqual(t, i, 0, key)
	switch v := of.Rows[row][i].(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	}
	t.Fatalf("%s is %T", key, of.Rows[row][i])
	return 0
}

// cost is the server's cost of one message.
type cost struct {
	cpu, allocations, size float64
	writes                 float64 // by the kernel's count, which has no io_uring in it
	libraryWrites          float64 // by the library's count, which has no wake-ups in it
}

// perMessage measures the cost of the load that runs now.
func perMessage(t *testing.T, srv *server.Process, g *load.Generator) cost {
	t.Helper()
	require.NoError(t, load.Wait(t.Context(), 200*time.Millisecond))
	warm, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	before, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	from := g.Sum()
	require.NoError(t, load.Wait(t.Context(), 500*time.Millisecond))
	to := g.Sum()
	after, err := srv.Call(control.Command{Name: "report"})
	require.NoError(t, err)
	require.Greater(t, to.Messages, from.Messages)
	require.Zero(t, after.Dropped)
	n := float64(after.Messages - before.Messages)
	// A report allocates and writes, too: as much as the one before did.
	return cost{
		cpu:           result.Micros(after.CPU-before.CPU) / n,
		libraryWrites: float64(after.Writes-before.Writes) / n,

		writes:      rise(warm.WriteCalls, before.WriteCalls, after.WriteCalls) / n,
		allocations: rise(warm.Mallocs, before.Mallocs, after.Mallocs) / n,
		size:        rise(warm.TotalAlloc, before.TotalAlloc, after.TotalAlloc) / n,
	}
}

// rise is the difference between before and after, less the part that a report
// adds: the difference between warm and before.
func rise(warm, before, after uint64) float64 {
	return max(0, float64(after-before)-float64(before-warm))
}

// ratioOf is the median of many.cpu / one.cpu over some rounds, each with both
// side by side, and the least of the other costs of many.
func ratioOf(measure func(k int) cost, many int) (ratio float64, least cost) {
	var ratios []float64
	for i := range 5 {
		one, all := measure(1), measure(many)
		ratios = append(ratios, all.cpu/one.cpu)
		if i == 0 {
			least = all
		}
		least = cost{
			writes: min(least.writes, all.writes), allocations: min(least.allocations, all.allocations),
			size: min(least.size, all.size),
		}
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2], least
}

func perfSession() *command.Session {
	s := command.NewSession()
	s.Path, s.Loops, s.ClientLoops, s.MaxProcs = "native", 2, 2, 2 // the same batches on any machine
	return &s
}

const perfSize = 512

func perfEcho(t *testing.T, got map[string]float64) {
	const conns = 200
	s := perfSession()
	ratio, c := ratioOf(func(inflight int) cost {
		work := make([]*echoing, s.ClientLoops)
		srv, g, stop, err := s.Start(t.Context(), s.Path, conns, control.Config{Mode: control.Echo},
			func(i int) load.Traffic {
				work[i] = &echoing{
					payload: load.NewBinaryPayload(perfSize), until: load.Never, number: i, loops: s.ClientLoops,
					conns: conns,
				}
				return work[i]
			})
		require.NoError(t, err)
		defer stop()
		require.NoError(t, g.Connect(t.Context(), conns))
		g.Each(func(i int, l *load.Loop) {
			for index := range l.Conns {
				work[i].fill(l, &l.Conns[index], inflight, control.Now())
				l.Send(int32(index), l.Out)
				l.Out = l.Out[:0]
			}
		})
		return perMessage(t, srv, g)
	}, 16)
	got["echo, 16 in flight: CPU, ratio to 1 in flight"] = ratio
	got["echo, 16 in flight: system calls"] = c.writes
	got["echo, 16 in flight: allocations"], got["echo, 16 in flight: bytes"] = c.allocations, c.size
}

func perfFanout(t *testing.T, got map[string]float64) {
	s := perfSession()
	r, err := openRoom(t.Context(), s, roomSetup{conns: 1000, rooms: 1, size: perfSize, outstanding: 64, ack: true})
	require.NoError(t, err)
	defer r.stop()
	single := math.Inf(1)
	ratio, c := ratioOf(func(outstanding int) cost {
		before := r.g.Sum()
		_, err := r.srv.Call(control.Command{Name: "publish", Size: perfSize, Outstanding: outstanding})
		require.NoError(t, err)
		c := perMessage(t, r.srv, r.g)
		ended, err := r.srv.Call(control.Command{Name: "stop"})
		require.NoError(t, err)
		missing, disordered, err := r.deliver(t.Context(), before, ended.Published)
		require.NoError(t, err)
		require.Zero(t, missing+disordered, fmt.Sprintf("%d outstanding", outstanding))
		if outstanding == 1 {
			single = min(single, c.writes+c.libraryWrites)
		}
		return c
	}, 64)
	got["fanout, 1 outstanding: system calls"] = single
	got["fanout, 64 outstanding: CPU, ratio to 1 outstanding"] = ratio
	got["fanout, 64 outstanding: system calls"] = c.writes
	got["fanout, 64 outstanding: allocations"], got["fanout, 64 outstanding: bytes"] = c.allocations, c.size
}
