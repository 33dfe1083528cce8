package proxies_test

import (
	"net/netip"

	"github.com/qi-realtime/ws"
)

// behindProxy returns the options of a server whose proxy runs on the same machine.
func behindProxy() []ws.Option {
	return []ws.Option{
		ws.WithTrustedProxies(netip.MustParsePrefix("127.0.0.1/32")),
	}
}

// behindProxyProtocol returns those of a server whose proxy sends the PROXY protocol.
func behindProxyProtocol() []ws.Option {
	return append(behindProxy(), ws.WithProxyProtocol())
}
