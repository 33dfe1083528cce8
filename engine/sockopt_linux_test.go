package engine_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/engine"
)

// option returns an option of the n-th connection's socket.
func (s *server) option(n, level, option int) int {
	s.t.Helper()
	v, err := unix.GetsockoptInt(s.peer(n).conn.FD(), level, option)
	require.NoError(s.t, err)
	return v
}

func (s *server) unsentBytes(n int) int { return s.option(n, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }

// TestUnsentBytesAreBounded asserts that each connection has the bound: at
// first by a call of its own, later by inheritance from the listener.
func TestUnsentBytesAreBounded(t *testing.T) {
	const bound = 12345
	for name, unknown := range map[string]bool{"listeners known": false, "listeners unknown": true} {
		t.Run(name, func(t *testing.T) {
			var later atomic.Int64
			since := time.Now()
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.Loops, cfg.UnsentBytes, cfg.NoReadiness = 1, bound, unknown
				cfg.HandshakeTimeout = time.Hour // a minute may pass within a handshake
				cfg.Now = func() time.Time { return since.Add(time.Duration(later.Load())) }
			})
			sh := s.Shards()[0]
			s.dial()
			assert.Equal(t, bound, s.unsentBytes(0))
			assert.False(t, sh.InheritsUnsent(), "the connection may have waited since before the listener was bounded")
			later.Add(int64(time.Minute))
			if unknown {
				s.dial()
				assert.False(t, sh.InheritsUnsent())
			} else {
				s.eventually(sh.InheritsUnsent, "the loop does not rely on its listener")
				s.dial()
			}
			assert.Equal(t, bound, s.unsentBytes(1))
			s.enroll("tcp", "127.0.0.1:0")
			assert.Equal(t, bound, s.unsentBytes(2))
			s.serve()
			assert.Equal(t, bound, s.unsentBytes(3))
			s.enroll("unix", t.TempDir()+"/socket") // it has no such option
			s.peer(4)
		})
	}
}

// TestUnsentBytesOfTheSystem asserts that 0 changes nothing.
func TestUnsentBytesOfTheSystem(t *testing.T) {
	s := start(t, nil)
	s.dial()
	assert.Zero(t, s.unsentBytes(0))
}

func TestSocketBuffers(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.RecvBuffer, cfg.SendBuffer = 20_000, 30_000 })
	s.dial()
	s.enroll("tcp", "127.0.0.1:0")
	s.serve()
	s.peer(2)
	s.enroll("unix", t.TempDir()+"/socket")
	for n := range 3 {
		assert.Equal(t, 2*20_000, s.option(n, unix.SOL_SOCKET, unix.SO_RCVBUF), "Linux doubles it")
		assert.Equal(t, 2*30_000, s.option(n, unix.SOL_SOCKET, unix.SO_SNDBUF))
	}
	assert.Equal(t, 2*30_000, s.option(3, unix.SOL_SOCKET, unix.SO_SNDBUF))
}
