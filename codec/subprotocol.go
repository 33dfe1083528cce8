package codec

import (
	"net/http"
	"slices"
)

// IsToken reports whether s may name a subprotocol or a header: s is not empty and consists of
// the characters of a token (RFC 9110 section 5.6.2). Safe for concurrent use.
func IsToken(s string) bool { return s != "" && all(s, isToken) }

// ChooseSubprotocol returns the index of the first subprotocol in supported that the request
// with the header h offers (RFC 6455 section 4.2.2), or -1. supported holds tokens in order of
// preference. Names are case-sensitive. Offers that are empty, repeated or no tokens have no
// effect, because they equal no supported name. h is borrowed. Safe for concurrent use.
func ChooseSubprotocol(h http.Header, supported []string) int {
	best := len(supported)
	for offer := range elements(h[protocolHeader]) {
		if i := slices.Index(supported[:best], offer); i >= 0 {
			best = i
		}
	}
	if best == len(supported) {
		return -1
	}
	return best
}
