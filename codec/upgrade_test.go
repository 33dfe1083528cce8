package codec_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func TestCheckUpgrade(t *testing.T) {
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) {
			if r.Header.Del(name); len(values) > 0 {
				r.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
	}
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"4.2.1 valid", func(*http.Request) {}, 0},
		{"4.1 POST", func(r *http.Request) { r.Method = "POST" }, 405},
		{"4.1 get", func(r *http.Request) { r.Method = "get" }, 405},
		{"4.1 HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, 505},
		{"4.1 HTTP/2", func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 }, 505},
		{"4.2.1 no Host", func(r *http.Request) { r.Host = "" }, 400},
		{"4.2.1 body", func(r *http.Request) { r.ContentLength = 1 }, 400},
		{"4.2.1 body of unknown length", func(r *http.Request) { r.ContentLength = -1 }, 400},
		{"4.2.1 chunked body", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }, 400},
		{"4.2.1 no Upgrade", set("Upgrade"), 426},
		{"4.2.1 Upgrade to another", set("Upgrade", "h2c"), 426},
		{"4.2.1 Upgrade in other case", set("Upgrade", "WebSocket"), 0},
		{"4.2.1 Upgrade list", set("Upgrade", "h2c, websocket"), 0},
		{"4.2.1 Upgrade that only begins so", set("Upgrade", "websocket2"), 426},
		{"4.2.1 no Connection", set("Connection"), 400},
		{"4.2.1 Connection without upgrade", set("Connection", "keep-alive"), 400},
		{"4.2.1 Connection list in other case", set("Connection", "keep-alive , UPGRADE"), 0},
		{"4.2.1 Connection in a second value", set("Connection", "keep-alive", "upgrade"), 0},
		{"4.2.1 Connection of one word more", set("Connection", "upgrade now"), 400},
		{"4.2.1 no key", set("Sec-WebSocket-Key"), 400},
		{"4.2.1 empty key", set("Sec-WebSocket-Key", ""), 400},
		{"4.2.1 two keys", set("Sec-WebSocket-Key", key, key), 400},
		{"4.2.1 key of 15 bytes", set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j"), 400},
		{"4.2.1 key of 17 bytes", set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWE="), 400},
		{"4.2.1 key of 18 bytes", set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWFh"), 400},
		{"4.2.1 key without padding", set("Sec-WebSocket-Key", strings.TrimRight(key, "=")), 400},
		{"4.2.1 key not base64", set("Sec-WebSocket-Key", "dGhlIHNhbXBs!SBub25jZQ=="), 400},
		{"4.2.1 key in URL base64", set("Sec-WebSocket-Key", "-_hlIHNhbXBsZSBub25jZQ=="), 400},
		{"4.2.1 key with bits that encode nothing", set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR=="), 0},
		{"4.1 the example of a key", set("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC=="), 0},
		{"4.2.1 key in a list", set("Sec-WebSocket-Key", key+", "+key), 400},
		{"4.2.1 key with a line end", set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j\r\n=="), 400},
		{"4.2.1 no version", set("Sec-WebSocket-Version"), 426},
		{"4.4 version 8", set("Sec-WebSocket-Version", "8"), 426},
		{"4.4 version 013", set("Sec-WebSocket-Version", "013"), 426},
		{"4.4 list of versions", set("Sec-WebSocket-Version", "13, 8"), 426},
		{"11.3.5 two versions", set("Sec-WebSocket-Version", "13", "13"), 400},
		{"4.2.1 Upgrade in a second value", set("Upgrade", "h2c", "websocket/13", "WebSocket"), 0},
		{"RFC 6454 7.3 two origins", set("Origin", "http://example.com", "http://example.com"), 400},
		{"4.1 no subprotocol", set("Sec-WebSocket-Protocol"), 0},
		{"4.1 subprotocol", set("Sec-WebSocket-Protocol", "v1.chat"), 0},
		{"4.1 subprotocols in two values", set("Sec-WebSocket-Protocol", "a, b", "c"), 0},
		{"4.1 subprotocols that differ by case", set("Sec-WebSocket-Protocol", "chat, Chat"), 0},
		{"RFC 9110 5.6.1 empty elements", set("Sec-WebSocket-Protocol", ",a, ,b,"), 0},
		{"4.1 empty subprotocols", set("Sec-WebSocket-Protocol", ""), 0},
		{"4.1 subprotocols of commas", set("Sec-WebSocket-Protocol", " , ,"), 0},
		{"4.1 subprotocol with a space", set("Sec-WebSocket-Protocol", "a b"), 0},
		{"4.1 subprotocol with a slash", set("Sec-WebSocket-Protocol", "a, b/c"), 0},
		{"4.1 subprotocol not ASCII", set("Sec-WebSocket-Protocol", "caf\u00e9"), 0},
		{"4.1 subprotocol quoted", set("Sec-WebSocket-Protocol", `"a"`), 0},
		{"4.1 subprotocol twice", set("Sec-WebSocket-Protocol", "a, b, a"), 0},
		{"4.1 first subprotocol twice", set("Sec-WebSocket-Protocol", "a,a"), 0},
		{"4.1 subprotocol twice in two values", set("Sec-WebSocket-Protocol", "b, a", "c, a"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _, err := parse([]byte(sampleRequest))
			require.NoError(t, err)
			tt.change(r)
			assert.Equal(t, tt.status, statusOf(t, codec.CheckUpgrade(r)))
		})
	}
}

// TestCheckUpgradeOfNetHTTP takes its requests from net/http's server.
func TestCheckUpgradeOfNetHTTP(t *testing.T) {
	var got error
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = codec.CheckUpgrade(r)
	}))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		req.Header.Set(name, value)
	}
	res, err := server.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.NoError(t, got)
}

// TestCheckHead takes its requests from net/http, which is more lenient.
func TestCheckHead(t *testing.T) {
	const first, host = "GET / HTTP/1.1\r\n", "Host: a\r\n"
	tests := []struct {
		name, request string
		status        int
	}{
		{"RFC 6455 1.2 sample", sampleRequest, 0},
		{"no header", first + host + "\r\n", 0},
		{"absolute-form", "GET wss://a/b HTTP/1.1\r\n" + host + "\r\n", 0},
		{"asterisk-form", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 0},
		{"RFC 6455 3 fragment in the target", "GET /#a HTTP/1.1\r\n" + host + "\r\n", 0},
		{"RFC 9112 3.2 target not ASCII", "GET /\u00e9 HTTP/1.1\r\n" + host + "\r\n", 0},
		{"RFC 9112 3.2.4 asterisk with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2.2 target of another scheme", "GET ftp://a/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9110 4.2.4 user info in the target", "GET http://u:p@a/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"RFC 9112 3.2 slash in Host", first + "Host: a/b\r\n\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(tt.request)))
			require.NoError(t, err)
			assert.Equal(t, tt.status, statusOf(t, codec.CheckHead(r)))
			_, _, err = parse([]byte(tt.request))
			assert.Equal(t, tt.status, statusOf(t, err), "as ParseRequest")
		})
	}
}

func TestHeaderHasToken(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		want   bool
	}{
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"alone", []string{"upgrade"}, true},
		{"case", []string{"uPgRaDe"}, true},
		{"last of a list", []string{"a,b ,\tUpgrade\t"}, true},
		{"empty elements", []string{",, ,upgrade,"}, true},
		{"second value", []string{"a, b", "upgrade"}, true},
		{"part of a word", []string{"upgraded, anupgrade"}, false},
		{"two words", []string{"upgrade x"}, false},
		{"quoted", []string{`"upgrade"`}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"Connection": tt.values}
			assert.Equal(t, tt.want, codec.HeaderHasToken(h, "connection", "Upgrade"))
		})
	}
	assert.False(
		t, codec.HeaderHasToken(http.Header{"Upgrade": {"websoc\u212Aet"}}, "Upgrade", "websocket"), "Kelvin sign",
	)
}

func TestEqualFold(t *testing.T) {
	for c := range 256 {
		for d := range 256 {
			s, u := string([]byte{byte(c)}), string([]byte{byte(d)})
			want := s == u
			if c < utf8.RuneSelf && d < utf8.RuneSelf {
				want = strings.EqualFold(s, u)
			}
			require.Equal(t, want, codec.EqualFold(s, u), "%q %q", s, u)
		}
	}
}

func TestAcceptKey(t *testing.T) {
	// RFC 6455 section 1.3.
	assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", codec.AcceptKey("dGhlIHNhbXBsZSBub25jZQ=="))
}
