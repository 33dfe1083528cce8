package proxies_test

import (
	"net/http"
	"os"
	"strings"
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

// The server knows the client's own address, whatever the client claims.
func TestClientAddress(t *testing.T) {
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		b := start(t)
		for scheme, to := range p.start(t, b.addr, setup{}).targets() {
			t.Run(scheme, func(t *testing.T) {
				to.from = "127.0.0.2"
				forged := http.Header{"X-Real-Ip": {"6.6.6.6"}, "X-Forwarded-For": {"6.6.6.6"}}
				who := to.dial(t, forged).whoami()
				assert.Equal(t, "127.0.0.2", who.IP)
				assert.Regexp(t, `^6\.6\.6\.6, ?127\.0\.0\.2$`, who.Forwarded)
				assert.False(t, who.TLS)
			})
		}
	})
}

// The function in docs/proxies.md is the one that is tested.
func TestClientAddressIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/proxies.md")
	require.NoError(t, err)
	source, err := os.ReadFile("address_test.go")
	require.NoError(t, err)
	from := strings.Index(string(source), "// clientAddress")
	require.Positive(t, from)
	assert.Contains(t, string(page), "```go\n"+string(source[from:])+"```")
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
