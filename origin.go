package ws

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin refuses a request from a page that may not connect.
func (m *Manager) checkOrigin(r *http.Request) error {
	if m.originAllowed(r) {
		return nil
	}
	return &HandshakeError{Status: http.StatusForbidden, Reason: "origin not allowed"}
}

// originAllowed applies the configured check to the request's Origin.
func (m *Manager) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	switch {
	case m.cfg.AllowAllOrigins:
		return true
	case m.cfg.CheckOrigin != nil:
		return m.cfg.CheckOrigin(r)
	case len(m.cfg.OriginWhitelist) > 0:
		return slices.ContainsFunc(m.cfg.OriginWhitelist, func(allowed string) bool {
			return strings.EqualFold(allowed, origin)
		})
	case origin == "":
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
