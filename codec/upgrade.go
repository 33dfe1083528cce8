package codec

import (
	"crypto/sha1" // RFC 6455 section 4.2.2 prescribes it; no secret depends on it
	"encoding/base64"
	"iter"
	"net/http"
	"slices"
	"strings"
)

// The canonical forms of the handshake's header names, as they are in an http.Header.
const (
	keyHeader      = "Sec-Websocket-Key"
	versionHeader  = "Sec-Websocket-Version"
	protocolHeader = "Sec-Websocket-Protocol"

	extensionsHeader = "Sec-Websocket-Extensions"
)

const (
	// acceptGUID is the text that a server appends to the key (RFC 6455 section 1.3).
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	// keyBytes is the size of a key, and keyChars the size of its base64 form.
	keyBytes = 16
	keyChars = 24
)

// CheckUpgrade returns nil if r is an opening handshake (RFC 6455 section 4.2.1). r comes from
// [ParseRequest] or from net/http. The error is a *[RequestError]: 405 for another method than
// GET, 505 for another version than HTTP/1.1, 426 without Upgrade: websocket or with another
// version of the protocol than 13, else 400. Key, version and origin may occur only once. r is
// borrowed. Safe for concurrent use.
func CheckUpgrade(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet:
		return &RequestError{http.StatusMethodNotAllowed, "a handshake is a GET request"}
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return errVersion
	case r.Host == "":
		return errHost
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return badRequest("a handshake has no body")
	case !HeaderHasToken(r.Header, "Upgrade", "websocket"):
		return &RequestError{http.StatusUpgradeRequired, "Upgrade: websocket is required"}
	case !HeaderHasToken(r.Header, "Connection", "upgrade"):
		return badRequest("Connection: Upgrade is required")
	}
	if err := checkVersion(r.Header[versionHeader]); err != nil {
		return err
	}
	if keys := r.Header[keyHeader]; len(keys) != 1 || !validKey(keys[0]) {
		return badRequest("exactly one Sec-WebSocket-Key of 16 bytes in base64 is required")
	}
	if len(r.Header["Origin"]) > 1 { // a check of the origin reads one of them only
		return badRequest("more than one Origin")
	}
	return nil
}

// CheckHead returns nil if [ParseRequest] would have accepted r, which net/http has parsed, as
// far as r still shows it. net/http accepts targets with user info or another scheme, which
// CheckHead refuses. It also joins folded lines, ends a line at a lone LF and merges equal
// Content-Lengths, which leaves no trace in r. net/http limits the size of the head. The error
// is a *[RequestError] with the status of ParseRequest. r is borrowed. Safe for concurrent use.
func CheckHead(r *http.Request) error {
	switch {
	case !all(r.RequestURI, isTarget), !all(r.Host, isHost), r.URL.User != nil,
		r.RequestURI == "*" && r.Method != http.MethodOptions:
		return badRequest("malformed request target")
	case r.URL.Scheme != "" && !isScheme(r.URL.Scheme):
		return badRequest("request target of another scheme")
	default:
		return nil
	}
}

// isScheme reports whether a request target in absolute-form may have scheme.
func isScheme(scheme string) bool {
	return slices.Contains([]string{"http", "https", "ws", "wss"}, scheme)
}

// checkVersion checks the values of Sec-WebSocket-Version. The answer to a request without one
// names the required version.
func checkVersion(versions []string) error {
	switch {
	case len(versions) > 1:
		return badRequest("more than one Sec-WebSocket-Version")
	case len(versions) == 0 || versions[0] != "13":
		return &RequestError{http.StatusUpgradeRequired, "Sec-WebSocket-Version: 13 is required"}
	default:
		return nil
	}
}

// validKey reports whether key is 16 bytes in base64. The last character may have unused bits:
// the example of RFC 6455 section 4.1 is such a key.
func validKey(key string) bool {
	if len(key) != keyChars {
		return false
	}
	var nonce [keyChars]byte
	n, err := base64.StdEncoding.Decode(nonce[:], []byte(key))
	return err == nil && n == keyBytes
}

// HeaderHasToken reports whether a value of name in h has the comma-separated element token. It
// ignores the case of ASCII letters. Safe for concurrent use.
func HeaderHasToken(h http.Header, name, token string) bool {
	for element := range elements(h[http.CanonicalHeaderKey(name)]) {
		if equalFold(element, token) {
			return true
		}
	}
	return false
}

// elements yields the comma-separated elements of a header's values without the empty ones (RFC
// 9110 section 5.6.1).
func elements(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range values {
			for v != "" {
				var element string
				element, v, _ = strings.Cut(v, ",")
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// AcceptKey returns the Sec-WebSocket-Accept that answers key (RFC 6455 section 4.2.2). Safe
// for concurrent use.
func AcceptKey(key string) string {
	return string(appendAcceptKey(nil, key))
}

// appendAcceptKey appends the AcceptKey of key to dst.
func appendAcceptKey(dst []byte, key string) []byte {
	var buf [keyChars + len(acceptGUID)]byte
	sum := sha1.Sum(append(append(buf[:0], key...), acceptGUID...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}
