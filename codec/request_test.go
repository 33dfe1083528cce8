package codec_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// sampleRequest is the request of RFC 6455 section 1.2.
const sampleRequest = "GET /chat?room=1&x=%20 HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"connection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Origin: http://example.com\r\n" +
	"Sec-WebSocket-Protocol: chat, superchat\r\n" +
	"sec-websocket-protocol:\tmega \t\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"\r\n"

// headLimits holds the limits in these tests.
var headLimits = codec.HeadLimits{Bytes: 8 << 10, Lines: 64}

// parse is ParseRequest within headLimits.
func parse(b []byte) (*http.Request, int, error) { return codec.ParseRequest(b, headLimits) }

// statusOf returns the status of a RequestError, 0 of nil.
func statusOf(t testing.TB, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var refused *codec.RequestError
	require.ErrorAs(t, err, &refused)
	assert.NotEmpty(t, refused.Reason)
	return refused.Status
}

// chopRequest parses longer and longer prefixes of b, like a loop whose buffer fills, and returns
// the first result that does not ask for more bytes.
func chopRequest(b []byte) (*http.Request, int, error) {
	for at := range len(b) + 1 {
		if r, n, err := parse(b[:at]); n > 0 || err != nil {
			return r, n, err
		}
	}
	return nil, 0, nil
}

func TestParseRequestAgreesWithNetHTTP(t *testing.T) {
	tests := []struct{ name, request string }{
		{"RFC 6455 1.2 sample", sampleRequest},
		{"RFC 9112 2.2 empty line first", "\r\n" + sampleRequest},
		{"RFC 9112 3.2.2 absolute-form", "GET http://other.example:8080/p?q HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"RFC 9112 3.2.2 absolute-form, ws", "GET ws://other.example HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"RFC 9112 3.2.4 asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"RFC 9112 5 empty value", "GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Blank:  \r\n\r\n"},
		{"RFC 9110 5.5 tab and obs-text in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\xE9\r\n\r\n"},
		{
			"RFC 9110 5.6.2 all token characters",
			"M!#$%&'*+-.^_`|~09aZ / HTTP/1.1\r\nHost: a\r\nx!#$%&'*+-.^_`|~09: 1\r\n\r\n",
		},
		{"RFC 9112 6.2 empty body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
		{"host with port", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"},
		{"RFC 9112 2.3 HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n"},
		{"RFC 9112 2.3 HTTP/1.0 without Host or anything else", "OPTIONS / HTTP/1.0\r\n\r\n"},
		{"RFC 9112 3.2 no Host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n"},
		{"RFC 9112 3.2 empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n"},
		{"target not ASCII", "GET /caf\u00e9?q=\xff\xc3 HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"# in the path", "GET /a#b?c HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"# in the query", "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"path with two slashes", "GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// net/http accepts no leading empty line, which is no part of the request.
			want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimPrefix(tt.request, "\r\n"))))
			require.NoError(t, err)
			b := []byte(tt.request + "\x81\x80frames")
			got, n, err := parse(b)
			require.NoError(t, err)
			assert.Equal(t, len(tt.request), n)
			for i := range b {
				b[i] = 'X' // the request must not alias it
			}
			assert.Equal(t, want.Method, got.Method)
			assert.Equal(t, want.URL, got.URL)
			assert.Equal(t, want.RequestURI, got.RequestURI)
			assert.Equal(t, want.Host, got.Host)
			assert.Equal(t, want.Header, got.Header)
			assert.Equal(t, want.Proto, got.Proto)
			assert.Equal(t, []int{want.ProtoMajor, want.ProtoMinor}, []int{got.ProtoMajor, got.ProtoMinor})
			assert.Equal(t, http.NoBody, got.Body)
			assert.Zero(t, got.ContentLength)
			chopped, n, err := chopRequest([]byte(tt.request))
			require.NoError(t, err)
			assert.Equal(t, len(tt.request), n)
			assert.Equal(t, got, chopped)
		})
	}
}

func TestParseRequestValuesDoNotShareCapacity(t *testing.T) {
	r, _, err := parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n"))
	require.NoError(t, err)
	r.Header.Add("A", "3")
	assert.Equal(t, http.Header{"A": {"1", "3"}, "B": {"2"}}, r.Header)
}

func TestParseRequestRefuses(t *testing.T) {
	const first, host = "GET / HTTP/1.1\r\n", "Host: a\r\n"
	tests := []struct {
		name    string
		request string // up to the byte that decides
		status  int
	}{
		{"RFC 9112 3 TLS ClientHello", "\x16", 400},
		{"RFC 9112 3 space first", " ", 400},
		{"RFC 9112 3 no method character", "GE(", 400},
		{"RFC 9112 3 method not ASCII", "G\xC3", 400},
		{"RFC 9112 3 method alone", "GET\r\n", 400},
		{"RFC 9112 3 no target", "GET  ", 400},
		{"RFC 9112 3 tab for space", "GET\t", 400},
		{"RFC 9112 3 no version", "GET /\r\n", 400},
		{"RFC 9112 3 four words", "GET / HTTP/1.1 x\r\n", 400},
		{"RFC 9112 2.2 two empty lines first", "\r\n\r\n", 400},
		{"RFC 9112 2.2 CR CR LF first", "\r\r", 400},
		{"RFC 9112 2.2 LF without CR in the request line", "GET / HTTP/1.1\n", 400},
		{"RFC 9112 2.2 LF first", "\n", 400},
		{"RFC 9112 2.2 CR without LF in the request line", "GET /\rx", 400},
		{"RFC 9112 2.2 LF without CR in a header", first + "Host: a\n", 400},
		{"RFC 9112 2.2 CR without LF in a header", first + "X: a\rb", 400},
		{"RFC 9112 2.2 LF for the blank line", first + host + "\n", 400},
		{"RFC 9112 2.2 CR CR LF for the blank line", first + host + "\r\r", 400},
		{"RFC 9112 2.3 malformed version", "GET / HTTP/x.1\r\n", 400},
		{"RFC 9112 2.3 lower-case version", "GET / http/1.1\r\n", 400},
		{"RFC 9112 2.3 version of two digits", "GET / HTTP/1.10\r\n", 400},
		{"RFC 9112 2.3 HTTP/2 preface", "PRI * HTTP/2.0\r\n", 505},
		{"RFC 9112 2.3 HTTP/1.2", "GET / HTTP/1.2\r\n", 505},
		{"RFC 9112 3.2 control character in the target", "GET /\x01", 400},
		{"RFC 9112 3.2 DEL in the target", "GET /\x7F", 400},
		{"RFC 9112 3.2 bad escape in the target", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.1 relative target", "GET chat HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.2 opaque target", "GET http:chat HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.2 target without host", "GET http:///chat HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.2 target of another scheme", "GET ftp://a/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9110 4.2.4 user info in the target", "GET http://u:p@a/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.2 host of the target malformed", "GET http://a%20b/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.4 asterisk with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.3 authority-form", "CONNECT a:443 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2 two Hosts", first + host + host + "\r\n", 400},
		{"RFC 9112 3.2 space in Host", first + "Host: a b\r\n\r\n", 400},
		{"RFC 9112 3.2 slash in Host", first + "Host: a/b\r\n\r\n", 400},
		{"RFC 9112 3.2 user info in Host", first + "Host: u@a\r\n\r\n", 400},
		{"RFC 9112 3.2 Host not ASCII", first + "Host: \xC3\xA9\r\n\r\n", 400},
		{"RFC 9112 3.2.2 host of the target not ASCII", "GET http://caf\u00e9/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2 empty Host in absolute-form", "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"RFC 9112 2.3 HTTP/0.9", "GET / HTTP/0.9\r\n", 505},
		{"RFC 9112 3.2 no Host in absolute-form", "GET http://a/ HTTP/1.1\r\n\r\n", 400},
		{"RFC 9112 5.1 space before the colon", first + "Host ", 400},
		{"RFC 9112 5.1 tab before the colon", first + "Host\t", 400},
		{"RFC 9112 5 no colon", first + "Host\r\n", 400},
		{"RFC 9112 5 empty name", first + ":", 400},
		{"RFC 9112 5 name with a slash", first + "a/", 400},
		{"RFC 9112 5 name not ASCII", first + "\xC3", 400},
		{"RFC 9112 5.2 line folding", first + "X: 1\r\n ", 400},
		{"RFC 9112 5.2 line folding with a tab", first + "X: 1\r\n\t", 400},
		{"RFC 9112 2.2 space before the first header", first + " ", 400},
		{"RFC 9110 5.5 NUL in a value", first + "X: a\x00", 400},
		{"RFC 9110 5.5 ESC in a value", first + "X: \x1B", 400},
		{"RFC 9110 5.5 DEL in a value", first + "X: \x7F", 400},
		{"RFC 9112 6.3 Content-Length 5", first + host + "Content-Length: 5\r\n\r\n", 400},
		{"RFC 9112 6.3 Content-Length +0", first + host + "Content-Length: +0\r\n\r\n", 400},
		{"RFC 9112 6.3 two Content-Lengths", first + host + "Content-Length: 0\r\nContent-Length: 1\r\n\r\n", 400},
		{"RFC 9112 6.3 the same Content-Length twice", first + host + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400},
		{"RFC 9112 6.1 chunked", first + host + "transfer-encoding: chunked\r\n\r\n", 400},
		{"RFC 9112 6.1 identity", first + host + "Transfer-Encoding: identity\r\n\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte(tt.request)
			r, n, err := parse(b)
			assert.Equal(t, tt.status, statusOf(t, err), "as soon as it is there")
			assert.Nil(t, r)
			assert.Zero(t, n)
			_, _, err = parse(b[:len(b)-1])
			require.NoError(t, err, "not before")
			_, _, err = parse(append(b, sampleRequest...))
			assert.Equal(t, tt.status, statusOf(t, err), "nor later another")
		})
	}
}

func TestParseRequestLimits(t *testing.T) {
	of := func(n int) string { return strings.Repeat("x", n) }
	head := func(size int) string { // a request of that many bytes
		const frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
		return strings.Replace(frame, "X: ", "X: "+of(size-len(frame)), 1)
	}
	lines := func(n int) string { // a request of that many header lines
		return "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: 1\r\n", n-1) + "\r\n"
	}
	most := headLimits.Bytes
	tests := []struct {
		name    string
		request string
		status  int
	}{
		{"size limit-1", head(most - 1), 0},
		{"size limit", head(most), 0},
		{"size limit+1", head(most + 1), 431},
		{"size limit without the blank line", head(most + 10)[:most], 431},
		{"size limit-1 without the blank line", head(most + 10)[:most-1], 0},
		{"request with frames beyond the limit", head(most) + of(10_000), 0},
		{"request line at the limit", "GET /" + of(most), 414},
		{"request line within the limit", "GET /" + of(most-100), 0},
		{"request line of the limit", "GET /" + of(most-16) + " HTTP/1.1\r\n", 431},
		{"request line of the limit+1", "GET /" + of(most-15) + " HTTP/1.1\r\n", 414},
		{"method beyond the limit", of(most), 414},
		{"headers limit-1", lines(headLimits.Lines - 1), 0},
		{"headers limit", lines(headLimits.Lines), 0},
		{"headers limit+1", lines(headLimits.Lines + 1), 431},
		{"headers limit+1 without the blank line", strings.TrimSuffix(lines(headLimits.Lines+1), "\r\n"), 431},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parse([]byte(tt.request))
			assert.Equal(t, tt.status, statusOf(t, err))
			_, _, err = chopRequest([]byte(tt.request))
			assert.Equal(t, tt.status, statusOf(t, err), "bytewise")
		})
	}
}

func TestRequestError(t *testing.T) {
	_, _, err := parse([]byte("\x16"))
	require.EqualError(t, err, "codec: request refused: 400 Bad Request: malformed method")
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(sampleRequest), 10)
	f.Add([]byte("\r\nGET http://a:1/b HTTP/1.1\r\nHost: x\r\n\r\n\x81\x80"), 3)
	f.Add([]byte("OPTIONS * HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n"), 30)
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), 17)
	f.Add([]byte(strings.Replace(sampleRequest, "chat, superchat", "chat,, mega", 1)), 200)
	f.Add([]byte(strings.Replace(sampleRequest, "nonce", "nonce\x00", 1)), 150)
	f.Add([]byte(strings.Replace(sampleRequest, "ZQ==", "ZR==", 1)), 150)
	f.Add([]byte(strings.Replace(sampleRequest, "Origin", "Pragma: no-cache\r\nContent-Length: 0\r\nOrigin", 1)), 250)
	f.Add([]byte(strings.Replace(sampleRequest, "Upgrade: websocket", "Upgrade: h2c,\r\nupgrade: WebSocket ,x", 1)), 90)
	f.Add([]byte(strings.Replace(sampleRequest, "/chat?room=1", "wss://a.example:1/chat", 1)), 20)
	f.Add([]byte("GET / HTTP/1.1\r\nA: b\r\n c\r\nHost : d\n\n"), 5)
	f.Add([]byte("\x16\x03\x01\x02\x00\x01"), 1)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		input := bytes.Clone(b)
		r, n, err := parse(b)
		require.Equal(t, input, b, "the input is borrowed")
		checkParsed(t, b, r, n, err)
		at = min(max(at, 0), len(b))
		for _, at := range []int{at, at / 2, n, n - 1} {
			if at < 0 {
				continue
			}
			early, m, earlyErr := parse(b[:at])
			checkParsed(t, b[:at], early, m, earlyErr)
			switch {
			case earlyErr != nil:
				require.Error(t, err, "an error stays one")
			case m > 0:
				require.Equal(t, n, m, "more bytes give the same request")
				require.Equal(t, r, early)
			case n > 0:
				require.Less(t, at, n, "no more than the request is needed")
			}
		}
	})
}

// checkParsed checks the invariants of each result of ParseRequest.
func checkParsed(t *testing.T, b []byte, r *http.Request, n int, err error) {
	t.Helper()
	if err != nil || n == 0 {
		require.Nil(t, r)
		require.Zero(t, n)
		if err == nil {
			require.Less(t, len(b), headLimits.Bytes)
			return
		}
		require.Contains(t, []int{400, 414, 431, 505}, statusOf(t, err))
		require.NotEmpty(t, codec.AppendRefusal(nil, statusOf(t, err), err.Error(), nil))
		return
	}
	require.LessOrEqual(t, n, min(len(b), headLimits.Bytes))
	require.True(t, bytes.HasSuffix(b[:n], []byte("\r\n\r\n")))
	// net/http accepts all that this parser accepts, and reads the same request.
	want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(b[:n], []byte("\r\n")))))
	require.NoError(t, err)
	require.Equal(t, want.Method, r.Method)
	require.Equal(t, want.URL, r.URL)
	require.Equal(t, want.Host, r.Host)
	require.Equal(t, want.RequestURI, r.RequestURI)
	if _, ok := r.Header["Cache-Control"]; !ok && r.Header.Get("Pragma") == "no-cache" {
		delete(want.Header, "Cache-Control") // net/http adds it
	}
	require.Equal(t, want.Header, r.Header)
	if r.URL.Host == "" { // the host of an absolute-form target may be longer than the field
		require.NoError(t, codec.CheckHead(r))
	}
	require.NoError(t, codec.CheckHead(want))
	require.Equal(t, codec.CheckUpgrade(want), codec.CheckUpgrade(r))
	var refused *codec.RequestError
	if err := codec.CheckUpgrade(r); err != nil {
		require.True(t, errors.As(err, &refused))
		return
	}
	checkAccepted(t, r)
}

// checkAccepted checks the answer to a handshake that CheckUpgrade accepts.
func checkAccepted(t *testing.T, r *http.Request) {
	t.Helper()
	key := r.Header["Sec-Websocket-Key"][0]
	nonce, err := base64.StdEncoding.DecodeString(key)
	require.NoError(t, err)
	require.Len(t, nonce, 16)
	supported := []string{"superchat", "chat"}
	var accept codec.Accept
	if i := codec.ChooseSubprotocol(r.Header, supported); i >= 0 {
		accept.Subprotocol = supported[i]
		require.Contains(t, strings.Join(r.Header["Sec-Websocket-Protocol"], ","), accept.Subprotocol)
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(codec.AppendAccept(nil, r, accept))), r)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	require.Equal(t, codec.AcceptKey(key), res.Header.Get("Sec-WebSocket-Accept"))
	require.Equal(t, accept.Subprotocol, res.Header.Get("Sec-WebSocket-Protocol"))
}

// TestRequestParser parses requests into the same memory, and expects the results of ParseRequest
// and no trace of the requests before.
func TestRequestParser(t *testing.T) {
	long := "GET /long HTTP/1.1\r\nHost: a\r\n"
	for i := range 50 {
		long += fmt.Sprintf("X-%d: %d\r\n", i, i)
	}
	var p codec.RequestParser
	for _, request := range []string{
		sampleRequest, "GET / HTTP/1.1\r\n\r\n", long + "\r\n",
		"GET / HTTP/1.0\r\nHost: b\r\nX: 1\r\nx: 2\r\n\r\n", sampleRequest,
	} {
		b := []byte(request)
		r, n, err := p.Parse(b, headLimits)
		require.NoError(t, err)
		assert.Equal(t, len(request), n)
		clear(b) // it is borrowed
		want, _, err := parse([]byte(request))
		require.NoError(t, err)
		assert.Equal(t, want, r)
		r.TLS, r.RemoteAddr = &tls.ConnectionState{}, "127.0.0.1:1"
		r.Header.Set("X-Later", "1")
	}
	_, _, err := p.Parse([]byte("GET / HTTP/2.0\r\n"), headLimits)
	assert.Equal(t, http.StatusHTTPVersionNotSupported, statusOf(t, err))
}

func BenchmarkParseRequest(b *testing.B) {
	browser := strings.Replace(sampleRequest, "\r\n\r\n", "\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n"+
		"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n"+
		"Cache-Control: no-cache\r\nPragma: no-cache\r\nCookie: session=0123456789abcdef\r\n\r\n", 1)
	for name, request := range map[string]string{"sample": sampleRequest, "browser": browser} {
		b.Run(fmt.Sprintf("request=%s", name), func(b *testing.B) { benchmarkParse(b, []byte(request), parse) })
		b.Run(fmt.Sprintf("request=%s/reused", name), func(b *testing.B) {
			var p codec.RequestParser
			benchmarkParse(b, []byte(request), func(head []byte) (*http.Request, int, error) {
				return p.Parse(head, headLimits)
			})
		})
	}
}

func benchmarkParse(b *testing.B, head []byte, parse func([]byte) (*http.Request, int, error)) {
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		if _, n, err := parse(head); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
