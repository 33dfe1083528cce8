// Package clients_test tests the server with the WebSocket clients that Go programs use: the
// same conversation with each library and each kind of echo server.
package clients_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/interop/clients/echoserver"
)

// forEach runs test with each library against each kind of server.
func forEach(t *testing.T, test func(t *testing.T, lib library, s *server)) {
	for _, row := range echoserver.Rows() {
		t.Run(row.String(), func(t *testing.T) {
			for _, lib := range libraries {
				t.Run(lib.name, func(t *testing.T) { test(t, lib, start(t, row)) })
			}
		})
	}
}

// offers are the ways in which a client may ask for compression.
func offers(row echoserver.Row) map[string]dialOptions {
	all := map[string]dialOptions{"plain": {}, "offers deflate": {compress: true}}
	if row.Compression == echoserver.Takeover {
		all["offers takeover"] = dialOptions{compress: true, takeover: true}
	}
	return all
}

// random returns n bytes that do not compress, the same ones for the same n.
func random(n int) string {
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	_, _ = r.Read(b) // never fails
	return string(b)
}

func TestEcho(t *testing.T) {
	const mib = 1 << 20
	messages := []message{
		{false, "hello"},
		{false, ""},
		{true, ""},
		{false, "Gr\u00fc\u00dfe, \u4e16\u754c \U0001F30D"},
		{true, "\x00\xff\xfe binary \x80"},
		{true, random(125)},
		{true, random(126)},
		{true, random(65535)},
		{true, random(65536)},
		{false, strings.Repeat("the same words, ", mib/16)},
		{true, random(mib)},
		{false, strings.Repeat("\u4e16", 1000)},
	}
	forEach(t, func(t *testing.T, lib library, s *server) {
		for name, o := range offers(s.Row) {
			t.Run(name, func(t *testing.T) {
				c := s.dial(t, lib, o)
				want := o.compress && s.Row.Compression != echoserver.Off
				got := strings.Contains(c.resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
				assert.Equal(t, want, got, "negotiated %q", c.resp.Header.Get("Sec-WebSocket-Extensions"))
				for _, m := range messages {
					c.echo(m)
				}
				for i := range 50 { // similar small ones, for a context that is taken over
					c.echo(message{false, fmt.Sprintf(`{"type":"tick","n":%d,"price":%d.25}`, i, 100+i)})
				}
			})
		}
	})
}

// Many messages may be on their way at once.
func TestPipelinedEcho(t *testing.T) {
	forEach(t, func(t *testing.T, lib library, s *server) {
		for name, o := range offers(s.Row) {
			t.Run(name, func(t *testing.T) {
				c := s.dial(t, lib, o)
				for i := range 50 {
					require.NoError(t, c.send(message{false, strings.Repeat(fmt.Sprint(i), 100)}))
				}
				for i := range 50 {
					got, err := c.receive()
					require.NoError(t, err)
					require.Equal(t, strings.Repeat(fmt.Sprint(i), 100), got.payload)
				}
			})
		}
	})
}

func TestPing(t *testing.T) {
	forEach(t, func(t *testing.T, lib library, s *server) {
		for name, o := range offers(s.Row) {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, s.dial(t, lib, o).ping("are you there?"))
			})
		}
	})
}

func TestClientCloses(t *testing.T) {
	tests := []closeError{
		{1000, ""},
		{1000, "done"},
		{1001, "leaving"},
		{3000, "registered"},
		{4000, "gr\u00fc\u00df"},
		{4999, "last"},
	}
	forEach(t, func(t *testing.T, lib library, s *server) {
		for _, tt := range tests {
			t.Run(fmt.Sprint(tt.code, tt.reason), func(t *testing.T) {
				c := s.dial(t, lib, dialOptions{compress: true})
				c.echo(message{false, "hello"})
				answer, err := c.close(tt.code, tt.reason)
				require.NoError(t, err)
				assert.Contains(t, []int{0, tt.code}, answer)
				end := s.ended(t)
				assert.Equal(t, tt, closeError{end.Code, end.Reason})
				assert.True(t, end.Remote)
			})
		}
	})
}

func TestServerCloses(t *testing.T) {
	tests := []closeError{
		{1000, ""},
		{1001, "restart"},
		{1008, "no"},
		{1013, "later"},
		{3001, "x"},
		{4001, "gr\u00fc\u00df"},
		{4999, strings.Repeat("r", 123)},
	}
	forEach(t, func(t *testing.T, lib library, s *server) {
		for _, tt := range tests {
			t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
				c := s.dial(t, lib, dialOptions{compress: true})
				require.NoError(t, c.send(message{false, fmt.Sprintf("close %d %s", tt.code, tt.reason)}))
				_, err := c.receive()
				end, ok := errors.AsType[*closeError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, tt, *end)
				seen := s.ended(t)
				assert.Equal(t, tt.code, seen.Code)
				assert.False(t, seen.Remote)
			})
		}
	})
}

// A message beyond the limit closes with 1009.
func TestTooLarge(t *testing.T) {
	forEach(t, func(t *testing.T, lib library, s *server) {
		for name, o := range offers(s.Row) {
			t.Run(name, func(t *testing.T) {
				c := s.dial(t, lib, o)
				require.NoError(t, c.send(message{false, strings.Repeat("x", echoserver.MessageSizeLimit+1)}))
				_, err := c.receive()
				got, ok := errors.AsType[*closeError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, 1009, got.code)
				c.abandon()
				end := s.ended(t)
				assert.Equal(t, 1009, end.Code, end.Reason)
			})
		}
	})
}

func TestSubprotocol(t *testing.T) {
	tests := []struct {
		offer []string
		want  string
	}{
		{nil, ""},
		{[]string{echoserver.ProtocolV1}, echoserver.ProtocolV1},
		{[]string{echoserver.ProtocolV1, echoserver.ProtocolV2}, echoserver.ProtocolV2},
		{[]string{"other", echoserver.ProtocolV1}, echoserver.ProtocolV1},
		{[]string{"other"}, ""},
	}
	forEach(t, func(t *testing.T, lib library, s *server) {
		for _, tt := range tests {
			t.Run(strings.Join(tt.offer, ","), func(t *testing.T) {
				if tt.want == "" && tt.offer != nil && lib.name == "gws" {
					_, _, err := lib.dial(t.Context(), s.URL, dialOptions{tls: s.tls, subprotocols: tt.offer})
					require.Error(t, err, "the library insists on one that it offered, as browsers do")
					return
				}
				c := s.dial(t, lib, dialOptions{subprotocols: tt.offer})
				assert.Equal(t, tt.want, c.subprotocol())
				require.NoError(t, c.send(message{false, "subprotocol"}))
				got, err := c.receive()
				require.NoError(t, err)
				assert.Equal(t, tt.want, got.payload)
			})
		}
	})
}

func TestResponse(t *testing.T) {
	forEach(t, func(t *testing.T, lib library, s *server) {
		c := s.dial(t, lib, dialOptions{})
		assert.Equal(t, http.StatusSwitchingProtocols, c.resp.StatusCode)
		assert.Equal(t, []string{"first=1; Path=/", "second=2"}, c.resp.Header.Values("Set-Cookie"))
		assert.Equal(t, "yes", c.resp.Header.Get("X-Echo"))
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name, query string
		header      http.Header
		want        int
	}{
		{"origin", "", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"authentication", "?deny", nil, 401},
	}
	forEach(t, func(t *testing.T, lib library, s *server) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, resp, err := lib.dial(ctx, s.URL+tt.query, dialOptions{tls: s.tls, header: tt.header})
				require.Error(t, err)
				require.NotNil(t, resp)
				assert.Equal(t, tt.want, resp.StatusCode)
			})
		}
	})
}

// TestRows fails if a path is missing from the table.
func TestRows(t *testing.T) {
	rows := echoserver.Rows()
	assert.True(t, slices.ContainsFunc(rows, func(r echoserver.Row) bool { return r.NetHTTP }))
	assert.True(t, slices.ContainsFunc(rows, func(r echoserver.Row) bool { return !r.NetHTTP }))
}
