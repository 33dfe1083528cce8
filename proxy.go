package ws

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/qi-realtime/ws/codec"
)

// forwardedAddr returns the address of the client that trusted proxies report in a request of
// net/http, or the zero value if there is no such report. The event loops do the same for the
// native path.
func (c *Config) forwardedAddr(r *http.Request) (client netip.AddrPort) {
	if c.TrustedProxies == nil {
		return client
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); !unix {
			return client
		}
		peer = netip.AddrPort{}
	}
	if client = codec.TrustedProxies(c.TrustedProxies).Client(peer, r.Header); client == peer {
		return netip.AddrPort{}
	}
	return client
}

// validateProxies refuses prefixes that contain no address.
func (c *Config) validateProxies() error {
	for _, p := range c.TrustedProxies {
		switch {
		case !p.IsValid():
			return invalid("TrustedProxies", "has an invalid prefix")
		case p.Addr().Is4In6():
			return invalid("TrustedProxies", fmt.Sprintf("has %v: write it as a prefix of IPv4", p))
		}
	}
	return nil
}
