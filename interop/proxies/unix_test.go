package proxies_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
)

// A proxy reaches the native path through a Unix socket, too.
func TestUnixSocket(t *testing.T) {
	for p, prefix := range map[*product]string{nginx: "unix:", haproxy: "unix@"} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ws.sock")
			b := newBackend(t, ws.WithListenAddr("unix://"+path), ws.WithTrustedProxies())
			b.Addr() // waits for the start
			to := p.start(t, prefix+path, setup{}).plain
			to.from = "127.0.0.2"
			assert.Equal(t, "127.0.0.2", to.dial(t, nil).whoami().IP)
			b.converse(t, func(t *testing.T) *client { return to.dial(t, nil) })
		})
	}
}
