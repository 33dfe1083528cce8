package integration_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// transports are the transports that the benchmarks compare: plain connections, and TLS on both
// ways, and plain connections of Serve.
var transports = []struct {
	name string
	way  harness.Way
	tls  bool
}{
	{"plain", harness.Native, false},
	{"plain-serve", harness.Served, false},
	{"tls", harness.Native, true},
	{"tls-net-http", harness.NetHTTP, true},
}

// startTransport runs an inline echo and returns a function that connects.
func startTransport(b *testing.B, w harness.Way, secure bool) (dial func() net.Conn) {
	b.Helper()
	if !secure {
		s := harness.Start(b, ws.WithHandlerMode(ws.Inline))
		s.HandleRaw(harness.Echo)
		return func() net.Conn { return s.Dial(w).Conn }
	}
	s := harness.StartTLS(b, nil, ws.WithHandlerMode(ws.Inline))
	s.HandleRaw(harness.Echo)
	return func() net.Conn { return s.DialTLS(w, s.ClientConfig(tls.VersionTLS13)).Conn }
}

// BenchmarkTLSIdle opens 1,000 connections, echoes 16 KiB on each, and reports the cost of one. The
// client is in the same process and keeps its socket only. Run it with -benchtime=1x.
func BenchmarkTLSIdle(b *testing.B) {
	for _, t := range transports {
		b.Run("transport="+t.name, func(b *testing.B) {
			dial := startTransport(b, t.way, t.tls)
			const conns = 1000
			sockets := make([]net.Conn, 0, conns)
			open := func() {
				c := dial()
				message := harness.Frame(2, string(make([]byte, 16<<10)))
				_, err := io.WriteString(c, message)
				require.NoError(b, err)
				_, err = io.ReadFull(c, make([]byte, 16<<10+4))
				require.NoError(b, err)
				if tc, ok := c.(*tls.Conn); ok {
					c = tc.NetConn()
				}
				sockets = append(sockets, c)
			}
			open()
			for b.Loop() {
				heap, rss := memory(b)
				for range conns {
					open()
				}
				heap2, rss2 := memory(b)
				b.ReportMetric(float64(heap2-heap)/conns, "heap-B/conn")
				b.ReportMetric(float64(rss2-rss)/conns, "rss-B/conn")
			}
			runtime.KeepAlive(sockets)
		})
	}
}

// memory returns the live heap and the resident memory.
func memory(b *testing.B) (heap, rss int64) {
	b.Helper()
	debug.FreeOSMemory()
	debug.FreeOSMemory() // memory of finalizers and pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if f, err := os.Open("/proc/self/statm"); err == nil {
		_, err = fmt.Fscan(f, new(int64), &rss)
		require.NoError(b, err)
		_ = f.Close()
	}
	return int64(m.HeapAlloc), rss * int64(os.Getpagesize())
}

// BenchmarkTLSConnect connects, upgrades and hangs up: with TLS, a full
// handshake with an ECDSA certificate, client included.
func BenchmarkTLSConnect(b *testing.B) {
	for _, t := range transports {
		b.Run("transport="+t.name, func(b *testing.B) {
			dial := startTransport(b, t.way, t.tls)
			for b.Loop() {
				_ = dial().Close()
			}
		})
	}
}

// BenchmarkTLSEcho echoes messages, 16 in flight, client included.
func BenchmarkTLSEcho(b *testing.B) {
	for _, t := range transports {
		for _, size := range []int{64, 16 << 10} {
			b.Run(fmt.Sprintf("transport=%s/size=%d", t.name, size), func(b *testing.B) {
				c := startTransport(b, t.way, t.tls)()
				const inFlight = 16
				one := harness.Frame(2, string(make([]byte, size)))
				var batch []byte
				for range inFlight {
					batch = append(batch, one...)
				}
				replies := make([]byte, inFlight*(len(one)-4))
				b.ReportAllocs()
				b.SetBytes(int64(inFlight * size))
				for b.Loop() {
					_, err := c.Write(batch)
					require.NoError(b, err)
					_, err = io.ReadFull(c, replies)
					require.NoError(b, err)
				}
			})
		}
	}
}
