//go:build pending

package echoserver

import (
	"crypto/tls"

	"github.com/qi-realtime/ws"
)

// What the library can do.
const (
	hasTLS         = true
	hasCompression = true
)

// nativeTLS makes the native path speak TLS.
func nativeTLS(cfg *tls.Config) ws.Option { return ws.WithTLSConfig(cfg) }

// compression turns permessage-deflate on.
func compression(takeover bool) ws.Option {
	return ws.WithCompression(ws.CompressionConfig{Threshold: 1, ContextTakeover: takeover})
}
