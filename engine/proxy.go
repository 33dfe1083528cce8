package engine

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/qi-realtime/ws/codec"
)

// A trusted proxy reports the address of its client in two ways: with a header of
// the PROXY protocol before all other bytes, so before a TLS handshake, or in the
// header lines of the upgrade request. The address takes the place of the peer's
// own (setPeer), so everything that asks for the peer's address gets the client's,
// and an address over IPv4 takes no memory. If the first report names another
// trusted proxy, the header lines of that proxy are read, too.

// expectProxyHeader makes c wait for a header of the PROXY protocol if its peer
// must send one.
func (c *Conn) expectProxyHeader() {
	cfg := &c.shard.eng.cfg
	if cfg.ProxyProtocol && (cfg.TrustedProxies == nil || c.comesFromProxy()) {
		c.set(awaitsProxy)
	}
}

// reportsClients reports whether a peer at addr is a proxy that reports the address of
// its client.
func (e *Engine) reportsClients(addr netip.Addr) bool {
	return e.cfg.ProxyProtocol && e.cfg.TrustedProxies == nil || e.cfg.TrustedProxies.Trusts(addr)
}

// comesFromProxy reports whether the address of c is a trusted proxy's.
func (c *Conn) comesFromProxy() bool {
	return !c.is(unreported) && c.shard.eng.cfg.TrustedProxies.Trusts(c.peerAddr().Addr())
}

// ErrProxyHeader refuses a peer that must begin with a header of the PROXY protocol
// and begins with anything else.
var ErrProxyHeader = &codec.RequestError{Status: 400, Reason: "no valid PROXY protocol header"}

// readProxyHeader looks for a whole header of the PROXY protocol. It returns true
// if bytes follow that must be processed. A peer that sends anything else is
// refused, because its address could be anybody's.
func (c *Conn) readProxyHeader() bool {
	b, _ := c.gc.Peek(-1)
	client, n, err := codec.ParseProxyHeader(b)
	if n == 0 && err == nil {
		return false // the bytes stay in gnet's buffer
	}
	c.unset(awaitsProxy)
	if err != nil {
		_, _ = c.gc.Discard(-1)
		decision := refusedBy(ErrProxyHeader)
		decision.Refused = fmt.Errorf("%w: %w", ErrProxyHeader, err)
		c.admitted(nil, &decision)
		return false
	}
	_, _ = c.gc.Discard(n)
	if !client.IsValid() {
		c.set(unreported)
	} else {
		c.setPeer(client)
		c.unset(unreported)
		if !c.comesFromProxy() && !c.admitClient() {
			return false
		}
	}
	return c.gc.InboundBuffered() > 0
}

// takeForwarded gives c the client's address that trusted proxies report in the
// lines of h. It returns false if the client is refused because of its address.
func (c *Conn) takeForwarded(h http.Header) (in bool) {
	if !c.comesFromProxy() {
		return true
	}
	peer := c.peerAddr()
	if client := c.shard.eng.cfg.TrustedProxies.Client(peer, h); client != peer {
		c.setPeer(client)
	}
	return c.comesFromProxy() || c.admitClient()
}

// SetRemoteAddr sets the address of a client that a proxy has reported, before
// Enroll.
func (c *Conn) SetRemoteAddr(addr netip.AddrPort) { c.setPeer(addr) }
