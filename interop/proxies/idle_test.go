package proxies_test

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
)

// proxyTimeout is the time after which the proxies of these tests end a connection on which
// nothing passes.
const proxyTimeout = 6 * time.Second

// onEachScheme runs test with a client of each scheme, in parallel.
func (x *proxy) onEachScheme(t *testing.T, test func(t *testing.T, c *client)) {
	t.Helper()
	for scheme, to := range x.targets() {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			test(t, to.dial(t, nil))
		})
	}
}

// Pings keep an idle client connected for longer than the proxy's timeout.
func TestIdleWithPings(t *testing.T) {
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		b := start(t, ws.WithHeartbeatInterval(250*time.Millisecond), ws.WithHeartbeatTimeout(patience))
		x := p.start(t, b.addr, setup{timeout: proxyTimeout.String()})
		x.onEachScheme(t, func(t *testing.T, c *client) {
			from, asked := time.Now(), false
			c.conn.SetPingHandler(func(payload string) error {
				if !asked && time.Since(from) > proxyTimeout*3/2 {
					asked = true
					c.send("echo", text{"still here"})
				}
				return c.conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(patience))
			})
			assert.Contains(t, c.read(), "still here")
		})
	})
}

// Without pings the proxy ends the connection, because nothing passes on it.
func TestIdleWithoutPings(t *testing.T) {
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		b := start(t, ws.WithHeartbeatInterval(time.Hour), ws.WithHeartbeatTimeout(2*time.Hour))
		x := p.start(t, b.addr, setup{timeout: proxyTimeout.String()})
		x.onEachScheme(t, func(t *testing.T, c *client) {
			c.echo("hello")
			from := time.Now()
			_, _, err := c.receive()
			assert.True(t, websocket.IsCloseError(err, websocket.CloseAbnormalClosure), "%v", err)
			assert.Greater(t, time.Since(from), proxyTimeout/2)
			b.expectEnd(t, 1006, "", false)
		})
	})
}
