package engine_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// If this fails after an upgrade of gnet, see how its connections hold their
// addresses and contexts now.
func TestGnetKeepsNoAddress(t *testing.T) {
	for name, connect := range map[string]func(s *server){
		"accepted by a loop": func(s *server) { s.dial() },
		"enrolled":           func(s *server) { s.enroll("tcp", "127.0.0.1:0") },
		"served":             func(s *server) { s.serve() },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			connect(s)
			p := s.peer(0)
			onLoop(p.conn.Shard(), func(*engine.Shard) {
				remote, local, safeContext, known := p.conn.GnetFields()
				assert.True(t, known)
				assert.Nil(t, remote)
				assert.Nil(t, local)
				assert.Nil(t, safeContext)
			})
		})
	}
}

func TestRemoteAddr(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "tcp://127.0.0.1:0", "IPv6": "tcp://[::1]:0", "both": "tcp://:0"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) { cfg.ListenAddr = addr })
			port := s.Addr().(*net.TCPAddr).Port
			host := net.IPv4(127, 0, 0, 1)
			if name == "IPv6" {
				host = net.IPv6loopback
			}
			nc, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: host, Port: port})
			require.NoError(t, err)
			defer nc.Close()
			_, err = nc.Write([]byte(upgradeRequest))
			require.NoError(t, err)
			assert.Equal(t, nc.LocalAddr().String(), s.peer(0).conn.RemoteAddr().String())
		})
	}
}
