package proxies_test

import (
	"encoding/csv"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// health returns HAProxy's status of the server, and the result of its last check.
func (x *proxy) health(t *testing.T) (status, check string) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(x.dir, "stats.sock"))
	if err != nil {
		return "", "" // the socket comes after the listeners
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "show stat\n")
	require.NoError(t, err)
	rows, err := csv.NewReader(conn).ReadAll()
	require.NoError(t, err)
	for _, row := range rows {
		if row[0] != "ws" || row[1] != "a" {
			continue
		}
		for i, column := range rows[0] {
			switch column {
			case "status":
				status = row[i]
			case "check_status":
				check = row[i]
			}
		}
	}
	return status, check
}

// HAProxy sends clients to a server that answers its checks, and to no other.
func TestHealthCheck(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) { healthCheck(t, start(t), setup{}) })
}

// The native path answers every kind of check.
func TestKindsOfHealthCheck(t *testing.T) {
	for _, check := range []string{
		"option httpchk",
		"option httpchk GET /healthz",
		"option httpchk HEAD /readyz",
		"option httpchk\n    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost",
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			s := setup{replace: map[string]string{"option httpchk GET /readyz": check}}
			healthCheck(t, startNative(t), s)
		})
	}
}

// healthCheck expects that HAProxy takes b for up while it runs.
func healthCheck(t *testing.T, b *backend, s setup) {
	t.Helper()
	x := haproxy.start(t, b.addr, s)
	eventually(t, func() bool {
		_, check := x.health(t)
		return check == "L7OK"
	}, "no check was successful")
	c := x.plain.dial(t, nil)
	c.echo("hello")
	c.close(1000, "")

	b.stop(t)
	eventually(t, func() bool {
		status, _ := x.health(t)
		return status == "DOWN"
	}, "the server is not down")
	_, err := x.plain.tryDial(t, nil)
	var refused *refusal
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusServiceUnavailable, refused.status)
}

// nginx asks for /readyz with HTTP/1.0, and passes the answer on.
func TestReadinessThroughNginx(t *testing.T) {
	b := startNative(t, ws.WithMaxConnections(1))
	x := nginx.start(t, b.addr, setup{})
	status := func() int {
		resp, err := http.Get("http://" + x.plain.host + "/readyz")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, status())
	c := x.plain.dial(t, nil)
	require.Equal(t, http.StatusServiceUnavailable, status())
	c.close(1000, "")
	eventually(t, func() bool { return status() == http.StatusOK }, "not ready again")
	b.stop(t)
	require.Equal(t, http.StatusBadGateway, status())
}
