package ws

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/codec"
)

// service is the kind of answer that a path of ListenAddr gives.
type service uint8

const (
	serveNothing service = iota
	serveWebSocket
	serveLive
	serveReady
)

// serviceOf returns the service that r asks for.
func (c *Config) serviceOf(r *http.Request) service {
	path := cmp.Or(r.URL.Path, "/") // a target like ws://host asks for the root (RFC 9110 section 4.2.3)
	switch {
	case path == c.LivePath:
		return serveLive
	case path == c.ReadyPath:
		return serveReady
	case r.Method == http.MethodOptions && (path == "/" || path == "*") && c.ReadyPath != "":
		return serveReady // HAProxy's "option httpchk" without arguments
	case slices.ContainsFunc(c.Paths, func(p string) bool { return matchPath(p, path) }):
		return serveWebSocket
	}
	return serveNothing
}

// matchPath reports whether path is the pattern, or below it if the pattern ends in a
// slash.
func matchPath(pattern, path string) bool {
	return path == pattern || strings.HasSuffix(pattern, "/") && strings.HasPrefix(path, pattern)
}

// healthy is the answer to a health check that succeeds.
const healthy = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Length: 3\r\nConnection: close\r\n\r\nok\n"

// readiness returns the answer to a check whether new clients may be sent here.
func (m *Manager) readiness() []byte {
	switch {
	case m.isStopping():
		return codec.AppendRefusal(nil, http.StatusServiceUnavailable, "shutting down", nil)
	case m.clients.admitted.Load() >= int64(m.cfg.MaxConnections):
		return codec.AppendRefusal(nil, http.StatusServiceUnavailable, "too many connections", nil)
	}
	return []byte(healthy)
}

// isStopping reports whether Shutdown has begun.
func (m *Manager) isStopping() bool {
	select {
	case <-m.stopping:
		return true
	default:
		return false
	}
}
