package codec

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Accept holds the parts of a response that accepts a handshake, beside the answer to the key.
// Immutable after New.
type Accept struct {
	Subprotocol string      // Sec-WebSocket-Protocol; empty for none
	Extensions  string      // Sec-WebSocket-Extensions; empty for none
	Header      http.Header // the application's own lines, see CheckAcceptHeader; may be nil
}

// CheckAcceptHeader returns an error if h has a line that must not be in a response that accepts
// a handshake: a line of the handshake itself (Connection, Upgrade, Sec-WebSocket-...), a line
// that announces a body, a malformed name, or a control character in a value. The error names
// the line. h is borrowed. Safe for concurrent use.
func CheckAcceptHeader(h http.Header) error {
	for name, values := range h {
		switch {
		case name == "" || !all(name, isToken):
			return fmt.Errorf("codec: %q is no header name", name)
		case isHandshake(name):
			return fmt.Errorf("codec: header %s is the handshake's own", name)
		}
		for _, value := range values {
			if !all(value, isFieldText) {
				return fmt.Errorf("codec: control character in header %s", name)
			}
		}
	}
	return nil
}

// acceptBytes is enough for a response that accepts a handshake without extensions.
const acceptBytes = 160

// AppendAccept appends to dst the whole response that accepts r, and returns the result. r has
// passed [CheckUpgrade]. AppendAccept leaves out lines of a.Header that [CheckAcceptHeader]
// refuses for their names, and replaces control characters in values by spaces. r and a are
// borrowed. Safe for concurrent use.
func AppendAccept(dst []byte, r *http.Request, a Accept) []byte {
	var key string
	if keys := r.Header[keyHeader]; len(keys) > 0 {
		key = keys[0]
	}
	dst = slices.Grow(dst, acceptBytes)
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = append(appendAcceptKey(dst, key), "\r\n"...)
	if a.Subprotocol != "" {
		dst = appendLine(dst, "Sec-WebSocket-Protocol", a.Subprotocol)
	}
	if a.Extensions != "" {
		dst = appendLine(dst, "Sec-WebSocket-Extensions", a.Extensions)
	}
	return append(appendExtra(dst, a.Header, isHandshake), "\r\n"...)
}

// AppendRefusal appends to dst a whole response that refuses a request and announces the close
// of the connection, and returns the result. The body is reason, or the text of status if
// reason is empty, with a line feed. Status is 300 to 599; any other becomes 500. A 426 names
// the required protocol and version, a 405 the method. extra adds header lines. AppendRefusal
// leaves out lines that it sets itself or that [CheckAcceptHeader] refuses for their names, and
// replaces control characters in reason and in values by spaces. extra is borrowed.
// Safe for concurrent use.
func AppendRefusal(dst []byte, status int, reason string, extra http.Header) []byte {
	if status < 300 || status > 599 {
		status = http.StatusInternalServerError
	}
	if reason == "" {
		reason = http.StatusText(status)
	}
	reason = oneLine(reason)
	dst = append(append(append(dst, "HTTP/1.1 "...), statusLine(status)...), "\r\n"...)
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(reason)+1), 10)
	switch status {
	case http.StatusUpgradeRequired: // RFC 9110 section 7.8: Connection names Upgrade as well
		dst = append(dst, "\r\nConnection: close, Upgrade\r\n"+
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"...)
	case http.StatusMethodNotAllowed: // RFC 9110 section 15.5.6
		dst = append(dst, "\r\nConnection: close\r\nAllow: GET\r\n"...)
	default:
		dst = append(dst, "\r\nConnection: close\r\n"...)
	}
	dst = append(appendExtra(dst, extra, isRefusal), "\r\n"...)
	return append(append(dst, reason...), '\n')
}

// statusLine returns a status code and its text.
func statusLine(status int) string {
	return strconv.Itoa(status) + " " + http.StatusText(status)
}

// appendExtra appends the lines of a caller's header, sorted by name, without the lines that the
// response sets itself.
func appendExtra(dst []byte, extra http.Header, ours func(name string) bool) []byte {
	if len(extra) == 0 {
		return dst
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if name == "" || !all(name, isToken) || ours(name) {
			continue
		}
		for _, value := range extra[name] {
			dst = appendLine(dst, name, value)
		}
	}
	return dst
}

// appendLine appends a header line.
func appendLine(dst []byte, name, value string) []byte {
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, oneLine(value)...), "\r\n"...)
}

// isHandshake reports whether the named header belongs to the handshake or announces a body. Some
// clients would take the bytes behind such a 101 response for frames, others for a body.
func isHandshake(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Upgrade", "Connection", "Content-Length", "Transfer-Encoding":
		return true
	default:
		return strings.HasPrefix(name, "Sec-Websocket-")
	}
}

// isRefusal reports whether a refusal sets the named header itself or must not have it.
func isRefusal(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Allow", "Content-Type":
		return true
	default:
		return isHandshake(name)
	}
}
