package harness

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/testcert"
)

// TLSServer is a server that speaks TLS on both ways.
type TLSServer struct {
	*Server
	Roots *x509.CertPool
}

// StartTLS runs a manager whose both ways speak TLS with configurations alike.
func StartTLS(t testing.TB, configure func(*tls.Config), opts ...ws.Option) *TLSServer {
	t.Helper()
	cert, roots := testcert.New("localhost")
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	if configure != nil {
		configure(cfg)
	}
	s := &TLSServer{Server: Start(t, append([]ws.Option{ws.WithTLSConfig(cfg)}, opts...)...), Roots: roots}
	web := httptest.NewUnstartedServer(s.Web.Config.Handler)
	s.Web.Close()
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	web.TLS = cfg.Clone()
	web.TLS.NextProtos = []string{"h2", "http/1.1"}
	web.EnableHTTP2 = true
	web.StartTLS()
	s.Web = web
	return s
}

// ClientConfig returns the configuration of a client that speaks one version.
func (s *TLSServer) ClientConfig(version uint16) *tls.Config {
	return &tls.Config{ServerName: "localhost", RootCAs: s.Roots, MinVersion: version, MaxVersion: version}
}

// Over does a TLS handshake on c and returns a client that speaks over it.
func (c *Client) Over(cfg *tls.Config) *Client {
	c.T.Helper()
	tc := tls.Client(c.Conn, cfg)
	require.NoError(c.T, tc.Handshake())
	return &Client{Conn: tc, T: c.T, R: bufio.NewReaderSize(tc, 16<<10)}
}

// DialTLS opens a WebSocket connection over TLS.
func (s *TLSServer) DialTLS(w Way, cfg *tls.Config) *Client {
	s.T.Helper()
	c := s.DialTCP(w).Over(cfg)
	c.WriteRaw(UpgradeRequest("/ws", ""))
	resp, body := c.ReadResponse()
	require.Equal(s.T, 101, resp.StatusCode, body)
	return c
}

// OnBothTLS runs test for each way and version.
func OnBothTLS(t *testing.T, test func(t *testing.T, w Way, version uint16)) {
	t.Helper()
	OnBothWays(t, func(t *testing.T, w Way) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tls.VersionName(version), func(t *testing.T) { test(t, w, version) })
		}
	})
}
