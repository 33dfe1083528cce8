package codec

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// HeadLimits bounds a request head. Immutable.
type HeadLimits struct {
	Bytes int // most bytes of the head, the blank line included
	Lines int // most header lines
}

// RequestError is the refusal of a request. Status is the status code of the HTTP response, and
// Reason a sentence for the client. Immutable after New.
type RequestError struct {
	Status int
	Reason string
}

// Error returns the status code, its text and the reason.
func (e *RequestError) Error() string {
	return "codec: request refused: " + statusLine(e.Status) + ": " + e.Reason
}

// badRequest returns a RequestError with status 400.
func badRequest(reason string) error {
	return &RequestError{Status: http.StatusBadRequest, Reason: reason}
}

// ParseRequest parses the request head at the start of b and returns it with its size. It
// returns nil and 0 until the blank line arrives. It is stricter than net/http, because it
// expects an opening handshake only, and refuses a faulty head at the first wrong byte. The
// error is a *[RequestError]: 400 for malformed lines and for a request that announces a body,
// 414 for a request line and 431 for a head beyond limits.Bytes, 431 for more than limits.Lines
// header lines, 505 for other versions than HTTP/1.1 and HTTP/1.0.
//
// ParseRequest also accepts the health checks of load balancers: HTTP/1.0, and a request without
// Host, whose Host is then empty. [CheckUpgrade] refuses them as handshakes.
//
// b is borrowed. The request is owned by the caller. Its strings share one copy of the head;
// clone a string that must outlive the others. Safe for concurrent use.
func ParseRequest(b []byte, limits HeadLimits) (r *http.Request, n int, err error) {
	head, headers, err := findHead(b, limits)
	if head == nil {
		return nil, 0, err
	}
	return new(RequestParser).build(head, headers)
}

// RequestParser parses one request after the other into the same memory. The zero value is ready
// for use. Not safe for concurrent use.
type RequestParser struct {
	request http.Request
	header  http.Header
	values  []string // the values of header are parts of it
}

// Parse is [ParseRequest] with a request that is borrowed from p until the next call. Its strings
// stay valid.
func (p *RequestParser) Parse(b []byte, limits HeadLimits) (r *http.Request, n int, err error) {
	head, headers, err := findHead(b, limits)
	if head == nil {
		return nil, 0, err
	}
	return p.build(head, headers)
}

// findHead returns the request head at the start of b with its number of header lines. head is
// nil until the blank line arrives, and if the head is faulty.
func findHead(b []byte, limits HeadLimits) (head []byte, headers int, err error) {
	head = b[:min(len(b), limits.Bytes)]
	n, lines, err := scanHead(head, limits.Lines)
	switch {
	case err != nil:
		return nil, 0, err
	case n > 0:
		return head[:n], lines - 1, nil
	case len(b) < limits.Bytes:
		return nil, 0, nil
	case lines == 0:
		return nil, 0, &RequestError{http.StatusRequestURITooLong, "request line too long"}
	}
	return nil, 0, &RequestError{http.StatusRequestHeaderFieldsTooLarge, "request head too long"}
}

// scanHead checks the lines of head one by one, and returns the size of the head and its number
// of lines without blank ones. n is 0 until the blank line arrives. maxHeaders bounds the header
// lines. scanHead allocates nothing.
func scanHead(head []byte, maxHeaders int) (n, lines int, err error) {
	rest := trimBlankLine(head)
	for {
		line, size, err := cutLine(rest)
		if err != nil {
			return 0, lines, err
		}
		whole := size > 0
		switch {
		case lines == 0:
			err = checkRequestLine(line, whole)
		case whole && len(line) == 0:
			return len(head) - len(rest) + size, lines, nil
		case whole && lines > maxHeaders:
			err = &RequestError{http.StatusRequestHeaderFieldsTooLarge, "too many header lines"}
		default:
			err = checkHeaderLine(line, whole)
		}
		if err != nil || !whole {
			return 0, lines, err
		}
		lines++
		rest = rest[size:]
	}
}

// trimBlankLine drops one empty line before the request line (RFC 9112 section 2.2).
func trimBlankLine(head []byte) []byte {
	return bytes.TrimPrefix(head, []byte("\r\n"))
}

// cutLine returns the first line of b without its CRLF, and its size with the CRLF. For an
// unfinished line the size is 0. A lone CR or LF is an error, because a proxy may take it for
// the end of a line.
func cutLine(b []byte) (line []byte, size int, err error) {
	end := bytes.IndexByte(b, '\n')
	line = b
	if end >= 0 {
		line = b[:end]
	}
	cr := bytes.IndexByte(line, '\r')
	switch {
	case cr >= 0 && cr < len(line)-1:
		return nil, 0, badRequest("CR without LF")
	case end < 0 && cr >= 0:
		return line[:cr], 0, nil
	case end < 0:
		return line, 0, nil
	case cr < 0:
		return nil, 0, badRequest("LF without CR")
	}
	return line[:cr], end + 1, nil
}

// checkRequestLine checks a request line, or the beginning of one.
func checkRequestLine(line []byte, whole bool) error {
	method, rest, found := bytes.Cut(line, []byte(" "))
	if !all(method, isToken) || len(method) == 0 && (found || whole) {
		return badRequest("malformed method")
	}
	target, version, found := bytes.Cut(rest, []byte(" "))
	if !all(target, isTarget) || len(target) == 0 && (found || whole) {
		return badRequest("malformed request target")
	}
	if !whole {
		return nil
	}
	if !isVersion(version) {
		return badRequest("malformed HTTP version")
	}
	if string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0" {
		return errVersion
	}
	return nil
}

// isVersion reports whether v has the form of an HTTP version (RFC 9112 section 2.3).
func isVersion(v []byte) bool {
	return len(v) == len("HTTP/1.1") && bytes.HasPrefix(v, []byte("HTTP/")) &&
		isDigit(v[5]) && v[6] == '.' && isDigit(v[7])
}

// errVersion refuses other versions of HTTP than 1.1.
var errVersion = &RequestError{http.StatusHTTPVersionNotSupported, "a handshake needs HTTP/1.1"}

// isDigit reports whether c is an ASCII digit.
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// checkHeaderLine checks a header line, or the beginning of one. A line that begins with a space
// is obsolete line folding; the check of the name refuses it.
func checkHeaderLine(line []byte, whole bool) error {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !all(name, isToken) || len(name) == 0 && found || whole && !found {
		return badRequest("malformed header name")
	}
	if !all(value, isFieldText) {
		return badRequest("control character in header value")
	}
	return nil
}

// build returns the request of a head that scanHead has accepted, with the given number of
// header lines, and the size of the head.
func (p *RequestParser) build(b []byte, headers int) (r *http.Request, n int, err error) {
	head := string(b)
	line, rest, _ := strings.Cut(strings.TrimPrefix(head, "\r\n"), "\r\n")
	method, target, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(target, " ")
	u, err := parseTarget(method, target)
	if err != nil {
		return nil, 0, err
	}
	h := p.parseFields(rest, headers)
	if err := checkNoBody(h); err != nil {
		return nil, 0, err
	}
	host, err := takeHost(h, u)
	if err != nil {
		return nil, 0, err
	}
	p.request = http.Request{
		Method: method, URL: u, RequestURI: target, Host: host,
		Proto: version, ProtoMajor: 1, ProtoMinor: int(version[len(version)-1] - '0'),
		Header: h, Body: http.NoBody,
	}
	return &p.request, len(head), nil
}

// takeHost removes the Host from h and returns the requested host, which may be empty.
func takeHost(h http.Header, u *url.URL) (string, error) {
	var host string
	switch hosts := h["Host"]; {
	case len(hosts) > 1:
		return "", errHost
	case len(hosts) == 1:
		host = hosts[0]
	}
	delete(h, "Host")
	switch {
	case !all(host, isHost):
		return "", badRequest("malformed Host")
	case u.Host == "":
		return host, nil
	case host == "":
		return "", errHost
	}
	return u.Host, nil // RFC 9112 section 3.2.2: the host of the target replaces the field's
}

// errHost refuses a request without exactly one Host.
var errHost = badRequest("exactly one Host is required")

// parseTarget parses a request target in origin-form or absolute-form, or the asterisk of an
// OPTIONS request (RFC 9112 section 3.2).
func parseTarget(method, target string) (*url.URL, error) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, badRequest("malformed request target")
	}
	switch {
	case target[0] == '/', target == "*" && method == http.MethodOptions:
		return u, nil
	case u.Host == "" || u.User != nil || u.Opaque != "" || !all(u.Host, isHost):
		return nil, badRequest("malformed request target")
	}
	if !isScheme(u.Scheme) {
		return nil, badRequest("request target of another scheme")
	}
	return u, nil
}

// maxKeptHeader is the number of header lines beyond which a RequestParser does not keep a map.
const maxKeptHeader = 32

// parseFields returns n header lines as a map with canonical keys. The values of a map are
// parts of one slice, as in net/textproto.
func (p *RequestParser) parseFields(lines string, n int) http.Header {
	if p.header == nil || len(p.values) > maxKeptHeader {
		p.header = make(http.Header, n)
	}
	h := p.header
	clear(h)
	p.values = slices.Grow(p.values[:0], n)[:n]
	values := p.values
	for i := range n {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		name = canonicalKey(name)
		value = strings.Trim(value, " \t")
		if h[name] == nil {
			values[i] = value
			h[name] = values[i : i+1 : i+1]
			continue
		}
		h[name] = append(h[name], value)
	}
	return h
}

// canonicalKey returns the canonical form of a header name. textproto allocates for names that
// are not canonical and that it does not know, such as the usual spelling of the handshake's.
func canonicalKey(name string) string {
	for _, key := range [...]string{keyHeader, versionHeader, protocolHeader, extensionsHeader} {
		if equalFold(name, key) {
			return key
		}
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// checkNoBody refuses a request that announces a body. Frames follow the head; a proxy that took
// them for a body would allow request smuggling.
func checkNoBody(h http.Header) error {
	if len(h["Transfer-Encoding"]) > 0 {
		return badRequest("a handshake has no body")
	}
	switch lengths := h["Content-Length"]; {
	case len(lengths) > 1:
		return badRequest("more than one Content-Length")
	case len(lengths) == 1 && lengths[0] != "0":
		return badRequest("a handshake has no body")
	}
	return nil
}
