//go:build linux

package load

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
)

// Upgrade sends the opening handshake over a blocking connection and reads the
// answer, with r. It returns a RefusedError if the server refuses.
func Upgrade(conn io.Writer, r *bufio.Reader) error {
	if _, err := io.WriteString(conn, UpgradeRequest("/ws", "")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return RefusedError(resp.StatusCode)
	}
	return nil
}

// RefusedError is the HTTP status of a server that refuses an upgrade.
type RefusedError int

func (r RefusedError) Error() string { return fmt.Sprintf("HTTP %d", int(r)) }
