package codec

import "net/http"

// IsToken reports whether s may name a subprotocol or a header: it is not empty and has the
// characters of a token only (RFC 9110 section 5.6.2). Safe for concurrent use.
func IsToken(s string) bool { return s != "" && all(s, isToken) }

// ChooseSubprotocol returns the index in supported, which is in order of preference, of the
// first subprotocol that the request with the header h offers (RFC 6455 section 4.2.2), or -1.
// Names differ by case. h is borrowed. Safe for concurrent use.
func ChooseSubprotocol(h http.Header, supported []string) int {
	offers := h[protocolHeader]
	if len(offers) == 0 {
		return -1
	}
	for i, name := range supported {
		for offer := range elements(offers) {
			if offer == name {
				return i
			}
		}
	}
	return -1
}

// checkOffers checks the subprotocols that a client offers: tokens, of which no two are equal
// (RFC 6455 section 4.1).
func checkOffers(values []string) error {
	if len(values) == 0 {
		return nil
	}
	first, n := "", 0
	var seen map[string]bool // from the second offer on; a head has room for thousands
	for offer := range elements(values) {
		switch {
		case !all(offer, isToken):
			return badRequest("malformed Sec-WebSocket-Protocol")
		case n == 0:
			first = offer
		case n == 1:
			seen = map[string]bool{first: true}
		}
		if seen[offer] {
			return badRequest("a subprotocol is offered twice")
		}
		if n > 0 {
			seen[offer] = true
		}
		n++
	}
	if n == 0 {
		return badRequest("malformed Sec-WebSocket-Protocol")
	}
	return nil
}
