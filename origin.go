package ws

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// checkOrigin refuses a request from a page that may not connect.
func (m *Manager) checkOrigin(r *http.Request) error {
	if m.originAllowed(r) {
		return nil
	}
	return refuse(refusedOrigin, http.StatusForbidden, "origin not allowed", nil)
}

// originAllowed applies the configured check to the request's Origin.
func (m *Manager) originAllowed(r *http.Request) bool {
	header := r.Header.Get("Origin")
	switch {
	case m.cfg.AllowAllOrigins:
		return true
	case m.cfg.CheckOrigin != nil:
		return m.cfg.CheckOrigin(r)
	case len(m.cfg.OriginWhitelist) == 0 && header == "":
		return true
	}
	from, ok := parseOrigin(header)
	if !ok {
		return false
	}
	if len(m.cfg.OriginWhitelist) > 0 {
		return slices.ContainsFunc(m.cfg.OriginWhitelist, func(allowed string) bool {
			o, ok := parseOrigin(allowed)
			return ok && o == from
		})
	}
	return (from.scheme == "http" || from.scheme == "https") && from.authority == normalHost(from.scheme, r.Host)
}

// isWildcard reports whether an entry of OriginWhitelist is meant as a pattern.
func isWildcard(entry string) bool { return strings.Contains(entry, "*") }

// warnOfWildcards logs the entries of OriginWhitelist that match nothing.
func (c *Config) warnOfWildcards() {
	var wildcards []string
	for _, entry := range c.OriginWhitelist {
		if isWildcard(entry) {
			wildcards = append(wildcards, entry)
		}
	}
	if wildcards != nil {
		c.Logger.Warn("ws: entries of OriginWhitelist with a wildcard match no origin: list each, or use WithCheckOrigin",
			slog.Any("entries", wildcards))
	}
}

// origin is an origin in a form that can be compared: its scheme, and its host and
// port as normalHost returns them. Immutable.
type origin struct{ scheme, authority string }

// parseOrigin parses the serialization of an origin (RFC 6454 section 6.2). "null"
// and URLs with user info, a path or a wildcard are none.
func parseOrigin(s string) (o origin, ok bool) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found || strings.ContainsAny(rest, "/?#@\\* ") {
		return o, false
	}
	o.scheme = lowerASCII(scheme)
	o.authority = normalHost(o.scheme, rest)
	return o, scheme != "" && o.authority != ""
}

// normalHost returns a host with an optional port in lower case, without the dot at
// the host's end and without the default port of the scheme. Only ASCII letters have
// a lower case here: the Kelvin sign is no k.
func normalHost(scheme, authority string) string {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
	}
	host = lowerASCII(strings.TrimSuffix(host, "."))
	if host == "" || port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return host
	}
	return host + ":" + port
}

// lowerASCII returns s with its ASCII letters in lower case.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}
