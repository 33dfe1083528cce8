package engine_test

import (
	"os"
	"path/filepath"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

func TestFact10PortZeroIsOnePortForAllLoops(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 4 })
	for range 64 { // the kernel spreads them over the loops' listeners
		s.dial().echo()
	}
	for i, sh := range s.Shards() {
		assert.NotZero(t, sh.Stats().Opened, "loop %d", i)
	}
}

func TestFact10ASecondListenerOnThePortIsRefused(t *testing.T) {
	s := start(t, nil)
	cfg := testConfig()
	cfg.ListenAddr = "tcp://" + s.Addr().String()
	err := engine.New(cfg, s, s).Run()
	require.ErrorIs(t, err, unix.EADDRINUSE)
	require.ErrorContains(t, err, cfg.ListenAddr)
	s.dial().echo()
}

func TestFact10AListenerComesBackAfterARestart(t *testing.T) {
	first := start(t, func(cfg *engine.Config, _ *server) {
		cfg.ListenAddr = "tcp://127.0.0.99:0" // no other test takes the port meanwhile
	})
	c := first.dial()
	first.peer(0).conn.Close(codec.CloseNormal, "") // our side closes first and waits in TIME_WAIT
	c.expectClose(codec.CloseNormal)
	c.raw(frame(gobwas.OpClose, "\x03\xe8"))
	c.expectEOF()
	addr := "tcp://" + first.Addr().String()
	first.shutdown()
	start(t, func(cfg *engine.Config, _ *server) { cfg.ListenAddr = addr }).dial().echo()
}

func TestFact10AUnixPathThatIsNoSocketIsKept(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "precious")
	must(t, os.WriteFile(keep, []byte("data"), 0o600))
	for _, path := range []string{dir, keep} {
		cfg := testConfig()
		cfg.ListenAddr = "unix://" + path
		require.ErrorContains(t, engine.New(cfg, &server{t: t}, &server{t: t}).Run(), "not a socket")
		require.FileExists(t, keep)
	}
}

func TestFact10AUnixSocketServes(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.ListenAddr = "unix://" + filepath.Join(t.TempDir(), "ws.sock")
	})
	s.dial().echo()
}
