package proxies_test

import (
	"net"
	"net/http"
	"strings"

	"github.com/qi-realtime/ws"
)

// clientAddress keeps the client's own address as metadata.
func clientAddress(r *http.Request) ([]ws.ClientOption, error) {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	if ip == "127.0.0.1" { // the proxy
		ip = strings.Clone(r.Header.Get("X-Real-IP")) // the header's memory is not kept
	}
	return []ws.ClientOption{ws.WithMetadata("ip", ip)}, nil
}
