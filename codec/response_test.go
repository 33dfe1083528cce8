package codec_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// readResponse parses b with net/http and returns its body; b must end with it.
func readResponse(t *testing.T, b []byte) (*http.Response, string) {
	t.Helper()
	src := bufio.NewReader(bytes.NewReader(b))
	res, err := http.ReadResponse(src, nil)
	require.NoError(t, err)
	defer res.Body.Close()
	var body []byte
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, err = io.ReadAll(res.Body)
		require.NoError(t, err)
	}
	_, err = src.ReadByte()
	require.ErrorIs(t, err, io.EOF, "nothing follows the response")
	return res, string(body)
}

func TestAppendAccept(t *testing.T) {
	r, _, err := parse([]byte(sampleRequest))
	require.NoError(t, err)
	const plain = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
	tests := []struct {
		name  string
		extra http.Header
		want  string
	}{
		{"4.2.2 nothing more", nil, ""},
		{
			"two values, sorted names",
			http.Header{"Z": {"1"}, "Set-Cookie": {"a=1", "b=2"}},
			"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nZ: 1\r\n",
		},
		{"response splitting in a value", http.Header{"X": {"a\r\nEvil: 1\x00\r\n\r\n"}}, "X: a  Evil: 1     \r\n"},
		{"response splitting in a name", http.Header{"X: 1\r\nEvil": {"1"}, "": {"1"}, "A B": {"1"}}, ""},
		{
			"4.2.2 its own lines and those of a body stay out",
			http.Header{
				"Upgrade": {"x"}, "connection": {"close"}, "Sec-WebSocket-Accept": {"x"}, "Sec-Websocket-Version": {"8"},
				"Sec-WebSocket-Protocol": {"x"}, "Sec-WebSocket-Extensions": {"x"}, "sec-websocket-future": {"x"},
				"Content-Length": {"5"}, "Transfer-Encoding": {"chunked"},
			},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := codec.AppendAccept([]byte("before"), r, codec.Accept{Header: tt.extra})
			assert.Equal(t, "before"+plain+tt.want+"\r\n", string(got))
			res, _ := readResponse(t, got[len("before"):])
			assert.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
		})
	}
	t.Run("request without a key", func(t *testing.T) {
		readResponse(t, codec.AppendAccept(nil, &http.Request{}, codec.Accept{}))
	})
	t.Run("4.2.2 subprotocol and extensions", func(t *testing.T) {
		got := codec.AppendAccept(nil, r, codec.Accept{
			Subprotocol: "chat", Extensions: "permessage-deflate; a", Header: http.Header{"Content-Type": {"x"}},
		})
		assert.Equal(t, plain+"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate; a\r\n"+
			"Content-Type: x\r\n\r\n", string(got))
	})
}

func TestCheckAcceptHeader(t *testing.T) {
	tests := []struct {
		name   string
		header http.Header
		want   string // part of the error
	}{
		{"nil", nil, ""},
		{"lines", http.Header{"Set-Cookie": {"a=1", "b=2\tc"}, "x-any": {"caf\u00e9", ""}, "Content-Type": {"x"}}, ""},
		{"no values", http.Header{"X": nil}, ""},
		{"Upgrade", http.Header{"upgrade": {"x"}}, "upgrade is the handshake's own"},
		{"Connection", http.Header{"Connection": {"close"}}, "Connection is"},
		{"accept", http.Header{"Sec-Websocket-Accept": {"x"}}, "Accept is"},
		{"subprotocol", http.Header{"Sec-WebSocket-Protocol": {"x"}}, "Protocol is"},
		{"extensions", http.Header{"sec-websocket-extensions": {"x"}}, "extensions is"},
		{"body length", http.Header{"Content-Length": {"0"}}, "Content-Length is"},
		{"chunked body", http.Header{"Transfer-Encoding": {"chunked"}}, "Transfer-Encoding is"},
		{"no name", http.Header{"": {"x"}}, `"" is no header name`},
		{"name with a space", http.Header{"A B": {"x"}}, "is no header name"},
		{"name with a colon", http.Header{"A:": {"x"}}, "is no header name"},
		{"name with a line end", http.Header{"A\r\nB": {"x"}}, "is no header name"},
		{"CR in a value", http.Header{"A": {"x", "a\rb"}}, "control character in header A"},
		{"LF in a value", http.Header{"A": {"a\n"}}, "control character"},
		{"NUL in a value", http.Header{"A": {"\x00"}}, "control character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := codec.CheckAcceptHeader(tt.header)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestAppendRefusal(t *testing.T) {
	tests := []struct {
		name   string
		status int
		reason string
		extra  http.Header
		want   int
		body   string
		header http.Header // some of the lines
	}{
		{"plain", 400, "bad", nil, 400, "bad\n", nil},
		{"no reason", 503, "", nil, 503, "Service Unavailable\n", nil},
		{"4.4 version", 426, "13", nil, 426, "13\n", http.Header{"Sec-Websocket-Version": {"13"}, "Upgrade": {"websocket"}}},
		{"RFC 9110 15.5.6", 405, "GET", nil, 405, "GET\n", http.Header{"Allow": {"GET"}}},
		{
			"extra", 401, "who?",
			http.Header{"Www-Authenticate": {"Basic"}, "Retry-After": {"3"}},
			401, "who?\n",
			http.Header{"Www-Authenticate": {"Basic"}, "Retry-After": {"3"}},
		},
		{
			"redirect", 307, "there",
			http.Header{"Location": {"/a\r\nEvil: 1"}},
			307, "there\n",
			http.Header{"Location": {"/a  Evil: 1"}},
		},
		{
			"extra cannot change the length", 400, "bad",
			http.Header{"Content-Length": {"900"}, "Transfer-Encoding": {"chunked"}, "Connection": {"keep-alive"}},
			400, "bad\n",
			http.Header{"Content-Length": {"4"}},
		},
		{"reason of several lines", 400, "a\r\nb\x00c", nil, 400, "a  b c\n", nil},
		{"reason not ASCII", 400, "é\nä", nil, 400, "é ä\n", nil},
		{"status without a text", 599, "x", nil, 599, "x\n", nil},
		{"status without a text or reason", 599, "", nil, 599, "\n", nil},
		{"status that refuses nothing", 101, "x", nil, 500, "x\n", nil},
		{"status out of range", 1000, "x", nil, 500, "x\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := codec.AppendRefusal([]byte("before"), tt.status, tt.reason, tt.extra)
			rest, ok := strings.CutPrefix(string(got), "before")
			require.True(t, ok)
			res, body := readResponse(t, []byte(rest))
			assert.Equal(t, tt.want, res.StatusCode)
			assert.Equal(t, tt.body, body)
			assert.True(t, res.Close, "Connection: close")
			assert.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
			assert.Empty(t, res.TransferEncoding)
			assert.Empty(t, res.Header.Get("Evil"))
			for name, values := range tt.header {
				assert.Equal(t, values, res.Header.Values(name), name)
			}
		})
	}
}
