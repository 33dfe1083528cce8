package codec

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// AppendAccept appends to dst the whole response that accepts r, which passed [CheckUpgrade],
// and returns the result. extra adds header lines, such as a subprotocol; it may be nil. Those
// that the response sets itself, that announce a body or that have a malformed name are left
// out, and control characters in the values become spaces. r and extra are borrowed. Safe for
// concurrent use.
func AppendAccept(dst []byte, r *http.Request, extra http.Header) []byte {
	var key string
	if keys := r.Header[keyHeader]; len(keys) > 0 {
		key = keys[0]
	}
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = append(appendAcceptKey(dst, key), "\r\n"...)
	return append(appendExtra(dst, extra), "\r\n"...)
}

// AppendRefusal appends to dst a whole response that refuses a request and announces the close
// of the connection, and returns the result. Its body is reason, or the text of status if
// reason is empty, and a line feed. Status is 300 to 599; any other becomes 500. A 426 names
// the protocol and version to use, a 405 the method. extra adds header lines as in
// [AppendAccept]; control characters in reason become spaces. extra is borrowed. Safe for
// concurrent use.
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
	dst = append(appendExtra(dst, extra), "\r\n"...)
	return append(append(dst, reason...), '\n')
}

// statusLine returns a status code and its text.
func statusLine(status int) string {
	return strconv.Itoa(status) + " " + http.StatusText(status)
}

// appendExtra appends the lines of a caller's header, sorted by name.
func appendExtra(dst []byte, extra http.Header) []byte {
	if len(extra) == 0 {
		return dst
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if name == "" || !all(name, isToken) || isOurs(name) {
			continue
		}
		for _, value := range extra[name] {
			dst = append(append(dst, name...), ": "...)
			dst = append(append(dst, oneLine(value)...), "\r\n"...)
		}
	}
	return dst
}

// isOurs reports whether a response sets the named header itself or must not have it. A body
// length in a 101 response would be taken for frames by some and for a body by others.
func isOurs(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Upgrade", "Connection", "Sec-Websocket-Accept", versionHeader, "Allow",
		"Content-Type", "Content-Length", "Transfer-Encoding":
		return true
	default:
		return false
	}
}
