package otel_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/contrib/otel"
)

// BenchmarkEcho measures a message and its answer on a simulated network, without the kernel's share.
// The cost of spans is the difference between two of its rows. The best time of 64 messages varies by
// 2 ns even on a busy machine.
func BenchmarkEcho(b *testing.B) {
	for _, load := range []string{"raw", "typed"} {
		for _, variant := range []string{"without spans", "not sampled"} {
			b.Run("load="+load+"/"+variant, func(b *testing.B) {
				opts := []ws.Option{ws.WithListenAddr(""), ws.WithHandlerMode(ws.Inline), ws.WithLoops(1)}
				network := ws.NewSimnet()
				m, err := ws.NewManager(append(opts, ws.WithSimnet(network))...)
				require.NoError(b, err)
				if variant != "without spans" {
					require.NoError(b, otel.New(otel.Ratio(1e-9)).Use(m))
				}
				message := echo(b, m, load)
				ran := make(chan error, 1)
				go func() { ran <- m.Run() }()
				network.Connect(1, []byte("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
					"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
				const together = 64
				var frames bytes.Buffer
				for range together {
					require.NoError(b, gobwas.WriteFrame(&frames, gobwas.MaskFrame(gobwas.NewTextFrame([]byte(message)))))
				}
				input, bytesLeft := frames.Bytes(), make([]byte, frames.Len())
				best := time.Hour
				for b.Loop() {
					began := time.Now()
					copy(bytesLeft, input) // the server unmasks in place
					network.Send(0, bytesLeft)
					network.Wait()
					best = min(best, time.Since(began))
				}
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/together, "ns/message")
				b.ReportMetric(float64(best)/together, "best-ns/message")
				require.EqualValues(b, b.N*together, network.Stats().Messages)
				require.NoError(b, m.Shutdown(b.Context()))
				require.NoError(b, <-ran)
			})
		}
	}
}

// echo registers a handler that answers, and returns a message for it.
func echo(b *testing.B, m *ws.Manager, load string) string {
	text := strings.Repeat("x", 32)
	if load == "raw" {
		m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
		return text
	}
	require.NoError(b, ws.Handle(m, "order.place", func(_ *ws.Client, o *order) (*order, error) { return o, nil }))
	return `{"type":"request","event":"order.place","request_id":"1","data":{"fail":"` + text + `"}}`
}
