package ws

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws/codec"
)

func (c *Config) validateOrigins() error {
	ways := 0
	for _, set := range []bool{c.OriginWhitelist != nil, c.CheckOrigin != nil, c.AllowAllOrigins} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return invalid("OriginWhitelist", "excludes CheckOrigin and AllowAllOrigins, and they each other")
	}
	if c.OriginWhitelist != nil && len(c.OriginWhitelist) == 0 {
		return invalid("OriginWhitelist", "is empty and would refuse everybody")
	}
	for _, origin := range c.OriginWhitelist {
		if isWildcard(origin) {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			return invalid("OriginWhitelist", fmt.Sprintf("%q is not an origin such as https://example.com", origin))
		}
	}
	return nil
}

// isWildcard reports whether an entry of OriginWhitelist is a pattern.
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

// maxSubprotocols is the largest value of Client.subprotocol.
const maxSubprotocols = 255

func (c *Config) validateSubprotocols() error {
	if len(c.Subprotocols) > maxSubprotocols {
		return invalid("Subprotocols",
			fmt.Sprintf("has %d names, must have at most %d", len(c.Subprotocols), maxSubprotocols))
	}
	seen := make(map[string]bool, len(c.Subprotocols))
	for _, name := range c.Subprotocols {
		if !codec.IsToken(name) {
			return invalid("Subprotocols", fmt.Sprintf("%q is no token (RFC 6455 section 4.1)", name))
		}
		if seen[name] {
			return invalid("Subprotocols", fmt.Sprintf("has %q twice", name))
		}
		seen[name] = true
	}
	return nil
}

func (c *Config) validateListenAddr() error {
	if c.ListenAddr == "" {
		return nil
	}
	scheme, rest, ok := strings.Cut(c.ListenAddr, "://")
	if !ok {
		scheme, rest = "tcp", c.ListenAddr
	}
	_, port, err := net.SplitHostPort(rest)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	switch {
	case scheme != "unix" && err != nil, rest == "":
		return invalid("ListenAddr", fmt.Sprintf("%q is not of the form tcp://host:port", c.ListenAddr))
	case scheme != "tcp" && scheme != "tcp4" && scheme != "tcp6" && scheme != "unix":
		return invalid("ListenAddr", fmt.Sprintf("scheme %q is not tcp, tcp4, tcp6 or unix", scheme))
	case scheme == "unix" && rest[0] == '@' && runtime.GOOS != "linux":
		return invalid("ListenAddr", fmt.Sprintf("%q is an abstract socket, which Linux alone has", c.ListenAddr))
	}
	return nil
}

// validateTLS refuses a TLSConfig with which every handshake would fail.
func (c *Config) validateTLS() error {
	t := c.TLSConfig
	switch {
	case t == nil:
		return nil
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return invalid("TLSConfig", "needs Certificates, GetCertificate or GetConfigForClient")
	}
	return nil
}

// validatePaths refuses paths of ListenAddr that are malformed or have two meanings.
func (c *Config) validatePaths() error {
	if len(c.Paths) == 0 {
		return invalid("Paths", "is empty")
	}
	for _, path := range c.Paths {
		switch {
		case !strings.HasPrefix(path, "/"):
			return invalid("Paths", "must begin with a slash")
		case path == c.LivePath || path == c.ReadyPath:
			return invalid("Paths", "has a path of health checks")
		}
	}
	return firstError(
		invalidIf(c.LivePath != "" && c.LivePath[0] != '/', "LivePath", "must begin with a slash"),
		invalidIf(c.ReadyPath != "" && c.ReadyPath[0] != '/', "ReadyPath", "must begin with a slash"),
		invalidIf(c.ReadyPath != "" && c.ReadyPath == c.LivePath, "ReadyPath", "is LivePath as well"),
	)
}

// validatePolicy refuses unknown policies; 0 is valid.
func validatePolicy(field string, p OverflowPolicy) error {
	return invalidIf(p > Disconnect, field, "must be DropNewest, DropOldest or Disconnect")
}

func invalid(field, why string) error {
	return fmt.Errorf("%w: %s %s", ErrInvalidConfig, field, why)
}

func invalidIf(bad bool, field, why string) error {
	if bad {
		return invalid(field, why)
	}
	return nil
}

func atLeast[N number](field string, value, least N) error {
	return invalidIf(value < least, field, fmt.Sprintf("is %v, must be at least %v", value, least))
}

func between[N number](field string, value, least, most N) error {
	return invalidIf(value < least || value > most, field,
		fmt.Sprintf("is %v, must be between %v and %v", value, least, most))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
