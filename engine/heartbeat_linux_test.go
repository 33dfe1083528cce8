package engine_test

import (
	"bufio"
	"io"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// On a Unix socket, the number of unread bytes shows whether the peer reads.
func TestSlowDownloadOverAUnixSocket(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.ListenAddr = "unix://" + t.TempDir() + "/ws.sock"
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 1250*time.Millisecond, 5*time.Second
	})
	c := s.dial()
	const size, piece = 400 << 10, 6400 // half of it fits the socket's buffer
	c.r = bufio.NewReaderSize(c.Conn, 16)
	must(t, s.peer(0).conn.Send(engine.NewFrame(codec.OpBinary, make([]byte, size), engine.Handling{})))
	h, err := gobwas.ReadHeader(c.r)
	must(t, err)
	for h.OpCode == gobwas.OpPing { // one may come first
		_, err = io.CopyN(io.Discard, c.r, h.Length)
		must(t, err)
		h, err = gobwas.ReadHeader(c.r)
		must(t, err)
	}
	require.EqualValues(t, size, h.Length)
	pace := time.NewTicker(200 * time.Millisecond) // 13 s in all
	defer pace.Stop()
	for left := size; left > 0; left -= piece {
		_, err := io.CopyN(io.Discard, c.r, int64(min(piece, left)))
		require.NoError(t, err, "closed with %d bytes left", left)
		<-pace.C
	}
	c.send("still there?")
	require.Equal(t, "still there?", string(c.message().Payload))
}
