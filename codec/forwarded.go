package codec

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// TrustedProxies are the networks of the proxies whose reports of a client's address are
// believed. nil trusts nobody; a list that is empty trusts Unix sockets alone. Immutable.
type TrustedProxies []netip.Prefix

// Trusts reports whether the peer at addr is a trusted proxy. The zero Addr stands for a peer
// over a Unix socket, which every list trusts.
func (t TrustedProxies) Trusts(addr netip.Addr) bool {
	if !addr.IsValid() {
		return t != nil
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Client returns the address of the client that has sent a request over the connection of peer,
// with port 0 if the proxies do not report one. The zero AddrPort stands for a Unix socket.
//
// Each proxy adds the address of its own peer at the right end of X-Forwarded-For, or of
// Forwarded (RFC 7239) if the request has no X-Forwarded-For. So the last entry is true if peer
// is trusted, the entry before it if that one is trusted, too. The client is the first address
// from the right that is not trusted. An entry that is no address ends the search, because the
// entries before it come from nobody that is known: the client is then the last address that was
// believed, a proxy's.
func (t TrustedProxies) Client(peer netip.AddrPort, h http.Header) netip.AddrPort {
	lines, cut := h["X-Forwarded-For"], cutLastEntry
	if len(lines) == 0 {
		lines, cut = h["Forwarded"], cutLastElement
	}
	if len(lines) == 0 || !t.Trusts(peer.Addr()) {
		return peer
	}
	for _, line := range slices.Backward(lines) { // several lines are one list
		for more := true; more; {
			var node string
			node, line, more = cut(line)
			addr, ok := parseNode(node)
			if !ok {
				return peer
			}
			peer = addr
			if !t.Trusts(addr.Addr()) {
				return peer
			}
		}
	}
	return peer
}

// cutLastEntry returns the last entry of a line of X-Forwarded-For, the line before it, and
// whether there is one.
func cutLastEntry(line string) (node, before string, more bool) {
	i := strings.LastIndexByte(line, ',')
	return strings.Trim(line[i+1:], " \t"), line[:max(i, 0)], i >= 0
}

// cutLastElement is cutLastEntry for Forwarded: node is the value of the parameter "for" of the
// last element, "" if it has none or is malformed. It looks for the comma from the right, so the
// quotes of a client cannot swallow the elements that proxies have added.
func cutLastElement(line string) (node, before string, more bool) {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch {
		case line[i] == '"' && (!quoted || !isQuotedPair(line, i)):
			quoted = !quoted
		case line[i] == ',' && !quoted:
			return forParameter(line[i+1:]), line[:i], true
		}
	}
	return forParameter(line), "", false
}

// isQuotedPair reports whether a backslash quotes the character of s at i.
func isQuotedPair(s string, i int) bool {
	slashes := i - len(strings.TrimRight(s[:i], `\`))
	return slashes%2 == 1
}

// forParameter returns the value of the parameter "for" of an element of Forwarded. It returns
// "" if the element has none or two, or is malformed.
func forParameter(element string) (node string) {
	rest := strings.Trim(element, " \t")
	for {
		var name, value string
		var ok bool
		if name, value, rest, ok = cutPair(rest); !ok {
			return ""
		}
		if equalFold(name, "for") {
			if node != "" {
				return ""
			}
			node = value
		}
		if rest == "" {
			return node
		}
		if rest[0] != ';' {
			return ""
		}
		rest = strings.TrimLeft(rest[1:], " \t")
	}
}

// cutPair returns the pair of name and value at the start of s, and the rest of s. A value
// without quotes may have the colons and brackets that RFC 7239 wants in quotes, because some
// proxies send them so.
func cutPair(s string) (name, value, rest string, ok bool) {
	if name, s = cutToken(s); name == "" || s == "" || s[0] != '=' {
		return "", "", "", false
	}
	if s = s[1:]; strings.HasPrefix(s, `"`) {
		value, rest, ok = cutQuoted(s[1:])
		return name, value, strings.TrimLeft(rest, " \t"), ok
	}
	end := strings.IndexByte(s, ';')
	if end < 0 {
		end = len(s)
	}
	value = strings.TrimRight(s[:end], " \t")
	return name, value, s[end:], value != "" && !strings.ContainsAny(value, "\" \t")
}

// maxIPText is the longest text of an IP address: IPv6 with the last four bytes as IPv4.
const maxIPText = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")

// parseNode parses an IP address with an optional port; an IPv6 address with a port stands in
// brackets. "unknown" and obfuscated identifiers (RFC 7239 section 6) are no addresses, and
// neither is an address with a zone, which has no meaning on another machine.
func parseNode(s string) (addr netip.AddrPort, ok bool) {
	host, port, hasPort := s, "", false
	bracketed := strings.HasPrefix(s, "[")
	switch {
	case bracketed:
		var rest string
		if host, rest, ok = strings.Cut(s[1:], "]"); !ok {
			return addr, false
		}
		if port, hasPort = strings.CutPrefix(rest, ":"); rest != "" && !hasPort {
			return addr, false
		}
	case strings.Count(s, ":") == 1:
		host, port, hasPort = strings.Cut(s, ":")
	}
	if len(host) > maxIPText {
		return addr, false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" || bracketed && !ip.Is6() {
		return addr, false
	}
	if ip = ip.Unmap(); ip.IsUnspecified() {
		return addr, false
	}
	n, ok := uint16(0), true
	if hasPort {
		n, ok = parseNodePort(port)
	}
	return netip.AddrPortFrom(ip, n), ok
}

// parseNodePort parses a port. An obfuscated one (RFC 7239 section 6.3) is 0.
func parseNodePort(s string) (port uint16, ok bool) {
	if strings.HasPrefix(s, "_") {
		return 0, len(s) > 1 && all(s, isToken)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}
