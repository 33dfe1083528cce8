//go:build heavy

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

const (
	portRedis    = 6379
	portSentinel = 26379
	masterName   = "primary"
)

// startRedis starts a Redis server with arguments.
func startRedis(owner *testing.T, host string, args ...string) *server {
	owner.Helper()
	s := &server{host: host}
	args = append([]string{
		"--bind", host, "--port", fmt.Sprint(portRedis), "--save", "", "--dir", owner.TempDir(), "--protected-mode", "no",
	}, args...)
	s.restart = func(t *testing.T) {
		s.process = runRedis(t, owner, "redis "+host, "Ready to accept connections", args...)
	}
	s.restart(owner)
	return s
}

// runRedis starts Debian's redis-server, and waits for a line of its log.
func runRedis(t, owner *testing.T, name, ready string, args ...string) *process {
	t.Helper()
	p := start(t, owner, name, exec.Command("redis-server", args...))
	require.True(t, p.awaitLine(t, ready), "%s has ended", name)
	return p
}

// awaitLine waits for a line with the text. It returns false if the process ends first.
func (p *process) awaitLine(t *testing.T, text string) bool {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok || strings.Contains(line, text) {
				return ok
			}
		case <-timeout:
			require.Fail(t, p.name+" does not say "+text)
		}
	}
}

// replicated is a primary with a replica, and three Sentinels that promote the replica when the
// primary has died.
type replicated struct {
	primary, replica *server
	sentinels        []string // addresses
}

// startReplicated starts servers whose addresses begin with a number.
func startReplicated(t *testing.T, first int) *replicated {
	t.Helper()
	host := func(i int) string { return fmt.Sprintf("%s.%d", subnet, first+i) }
	r := &replicated{primary: startRedis(t, host(0), "--replica-announce-ip", host(0))}
	r.replica = startRedis(t, host(1), "--replica-announce-ip", host(1), "--replicaof", host(0), fmt.Sprint(portRedis))
	eventually(t, func() bool {
		return strings.Contains(do(t, addressOf(host(1), portRedis), "INFO", "replication"), "master_link_status:up")
	}, "the replica does not follow")
	for i := range 3 {
		file := filepath.Join(t.TempDir(), "sentinel.conf")
		config := fmt.Sprintf("bind %[1]s\nport %d\nprotected-mode no\nsentinel announce-ip %[1]s\n"+
			"sentinel monitor %[3]s %[4]s %[5]d 2\nsentinel down-after-milliseconds %[3]s 2000\n"+
			"sentinel failover-timeout %[3]s 20000\n", host(2+i), portSentinel, masterName, host(0), portRedis)
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		runRedis(t, t, "sentinel "+host(2+i), "Sentinel ID", file, "--sentinel")
		r.sentinels = append(r.sentinels, addressOf(host(2+i), portSentinel))
	}
	for _, s := range r.sentinels {
		eventually(t, func() bool {
			info := do(t, s, "INFO", "sentinel")
			return strings.Contains(info, "slaves=1,sentinels=3")
		}, "the Sentinels do not know each other")
	}
	return r
}

// awaitFailover waits until all Sentinels name the replica.
func (r *replicated) awaitFailover(t *testing.T) {
	t.Helper()
	for _, s := range r.sentinels {
		eventually(t, func() bool {
			return strings.Contains(do(t, s, "INFO", "sentinel"), "address="+addressOf(r.replica.host, portRedis))
		}, "no failover")
	}
}

// do runs a command of a server.
func do(t *testing.T, address string, args ...string) string {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{address}, ForceSingleClient: true, DisableCache: true,
	})
	require.NoError(t, err)
	defer c.Close()
	text, err := c.Do(context.Background(), c.B().Arbitrary(args...).Build()).ToString()
	require.NoError(t, err)
	return text
}
