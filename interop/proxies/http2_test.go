package proxies_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/qi-realtime/ws"
)

// A browser that has an HTTP/2 connection to HAProxy opens its WebSocket there (RFC 8441). HAProxy
// makes an upgrade request of it.
func TestHTTP2(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		x := haproxy.start(t, start(t).addr, setup{})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		//nolint:staticcheck // its successor in net/http refuses the name ":protocol"
		transport := &http2.Transport{
			TLSClientConfig: &tls.Config{RootCAs: x.tls.roots, ServerName: "127.0.0.1"},
		}
		web := http.Client{Transport: transport}
		defer web.CloseIdleConnections()
		body, out := io.Pipe()
		defer out.Close()
		r, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+x.tls.host+"/ws", body)
		require.NoError(t, err)
		r.Header = http.Header{
			":protocol":             {"websocket"},
			"Origin":                {"https://" + x.tls.host},
			"Sec-Websocket-Version": {"13"},
		}
		resp, err := web.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)

		stream := struct {
			io.Reader
			io.Writer
		}{resp.Body, out}
		for _, size := range []int{5, mib} {
			data, err := json.Marshal(text{strings.Repeat("x", size)})
			require.NoError(t, err)
			request, err := json.Marshal(ws.Message{
				Type: ws.TypeRequest, Event: "echo", RequestID: "1", Data: data,
			})
			require.NoError(t, err)
			require.NoError(t, wsutil.WriteClientText(stream, request))
			answer, err := wsutil.ReadServerText(stream)
			require.NoError(t, err)
			assert.True(t, strings.Contains(string(answer), string(data)), "%.100s", answer)
		}
	})
}
