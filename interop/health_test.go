package interop_test

import (
	"encoding/csv"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	onBothPaths(t, func(t *testing.T, start startFunc) {
		b := start(t)
		x := haproxy.start(t, b.addr, setup{})
		eventually(t, func() bool {
			_, check := x.health(t)
			return check == "L7OK"
		}, "the server was not checked")
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
	})
}
