package proxies_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// A reload of the proxy under many connections ends none of them and refuses no new one.
func TestReload(t *testing.T) {
	const connections = 1000
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		// Clients that wait for the others answer no pings.
		b := start(t, ws.WithHeartbeatTimeout(10*time.Minute))
		x := p.start(t, b.addr, setup{})
		clients := make([]*client, connections)
		for i := range clients {
			to := x.plain
			if i%10 == 0 {
				to = x.tls
			}
			clients[i] = to.dial(t, nil)
			clients[i].request("join", text{}, nil)
		}

		x.write(t, x.conf, x.configuration(t, b.addr, setup{replace: map[string]string{
			p.forwarded: p.forwarded + "\n" + p.reloaded,
		}}))
		require.NoError(t, x.process.Signal(p.reload))
		var first *client // of the new workers
		eventually(t, func() bool {
			first = x.plain.dial(t, nil)
			return first.whoami().Reloaded != ""
		}, "no worker has the new configuration")

		first.request("publish", text{"after the reload"}, nil)
		for _, c := range clients {
			require.Equal(t, "after the reload", c.read())
			c.echo("still here")
		}
	})
}
