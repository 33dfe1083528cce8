package codec

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Accept is what a response that accepts a handshake says beside the key's answer. Immutable
// after New.
type Accept struct {
	Subprotocol string      // Sec-WebSocket-Protocol; empty for none
	Extensions  string      // Sec-WebSocket-Extensions; empty for none
	Header      http.Header // the application's own lines, see CheckAcceptHeader; may be nil
}

// CheckAcceptHeader returns an error that names the line of h, if there is one that must not be
// in a response which accepts a handshake: one of the handshake itself (Connection, Upgrade,
// Sec-WebSocket-...), one that announces a body, a malformed name, or a control character in a
// value. h is borrowed. Safe for concurrent use.
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

// AppendAccept appends to dst the whole response that accepts r, which passed [CheckUpgrade],
// and returns the result. Lines of a.Header that [CheckAcceptHeader] refuses are left out, but
// control characters in values become spaces. r and a are borrowed. Safe for concurrent use.
func AppendAccept(dst []byte, r *http.Request, a Accept) []byte {
	var key string
	if keys := r.Header[keyHeader]; len(keys) > 0 {
		key = keys[0]
	}
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
// of the connection, and returns the result. Its body is reason, or the text of status if
// reason is empty, and a line feed. Status is 300 to 599; any other becomes 500. A 426 names
// the protocol and version to use, a 405 the method. extra adds header lines; those that the
// response sets itself or that [CheckAcceptHeader] refuses are left out. Control characters in
// reason and in values become spaces. extra is borrowed. Safe for concurrent use.
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

// appendExtra appends the lines of a caller's header, sorted by name, but those that are ours.
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

// isHandshake reports whether the named header belongs to the handshake or announces a body,
// which in a 101 response would be taken for frames by some and for a body by others.
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
