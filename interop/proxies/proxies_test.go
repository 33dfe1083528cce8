package proxies_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// behindEach runs test for each proxy before each path, in parallel.
func behindEach(t *testing.T, test func(t *testing.T, p *product, start startFunc)) {
	t.Helper()
	for _, p := range products {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			onBothPaths(t, func(t *testing.T, start startFunc) { test(t, p, start) })
		})
	}
}

// targets returns the addresses of a proxy by their scheme.
func (x *proxy) targets() map[string]target {
	return map[string]target{"ws": x.plain, "wss": x.tls}
}

func TestConversation(t *testing.T) {
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(scheme, func(t *testing.T) {
				b := start(t)
				to := p.start(t, b.addr, setup{}).targets()[scheme]
				b.converse(t, func(t *testing.T) *client { return to.dial(t, nil) })
			})
		}
	})
}

// nginx's $host has no port, so that a page of another port than the scheme's own is refused.
func TestHostWithoutPort(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		b := start(t)
		x := nginx.start(t, b.addr, setup{replace: map[string]string{"Host $http_host": "Host $host"}})
		for scheme, to := range x.targets() {
			t.Run(scheme, func(t *testing.T) {
				_, err := to.tryDial(t, nil)
				var refused *refusal
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, http.StatusForbidden, refused.status)
			})
		}
	})
}
