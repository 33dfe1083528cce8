//go:build !pending

package echoserver

import (
	"crypto/tls"

	"github.com/qi-realtime/ws"
)

// What the library can do so far; the build tag pending switches the rest on.
const (
	hasTLS         = false
	hasCompression = false
)

// nativeTLS makes the native path speak TLS.
func nativeTLS(*tls.Config) ws.Option { panic("echoserver: no TLS") }

// compression turns permessage-deflate on.
func compression(bool) ws.Option { panic("echoserver: no compression") }
