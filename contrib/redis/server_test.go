package redisbroker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

// server is a redis-server in a process of its own, with nothing on disk.
type server struct {
	t     testing.TB
	port  int
	args  []string
	files []string // a configuration file, which has to be the first argument
	cmd   *exec.Cmd
}

// newServer starts a server with arguments, on a free port below those that the kernel gives to
// clients, so that none of them takes it while the server is down. It is killed with the test.
func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	return newServerWithFile(t, nil, args...)
}

func newServerWithFile(t testing.TB, files []string, args ...string) *server {
	t.Helper()
	for range 100 {
		// The bus of a cluster has the port 10,000 above.
		s := &server{t: t, port: 10_000 + rand.IntN(12_000), args: args, files: files}
		l, err := net.Listen("tcp", s.address())
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		if s.start() {
			t.Cleanup(s.kill)
			return s
		}
	}
	require.Fail(t, "no server starts")
	return nil
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts the process, and returns false if it ends at once.
func (s *server) start() bool {
	s.t.Helper()
	args := []string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", s.t.TempDir()}
	s.cmd = exec.Command("redis-server", slices.Concat(s.files, args, s.args)...)
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, s.cmd.Start(), "Debian has it in the package redis-server")
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Ready to accept connections") || strings.Contains(lines.Text(), "Sentinel ID") {
			go func() {
				for lines.Scan() { // until the process ends
					continue
				}
			}()
			return true
		}
	}
	_ = s.cmd.Wait()
	return false
}

// signal sends a signal. It returns from SIGSTOP when all threads of the process have stopped.
func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(sig))
	if sig != syscall.SIGSTOP {
		return
	}
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if !errors.Is(err, syscall.EINTR) {
			require.NoError(s.t, err)
			require.True(s.t, status.Stopped())
			return
		}
	}
}

// kill ends the process at once, a stopped one too.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// do runs a command of the server.
func (s *server) do(args ...string) string {
	s.t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.address()}, ForceSingleClient: true, DisableCache: true,
		Dialer: net.Dialer{Timeout: patience}, ConnWriteTimeout: 2 * patience,
	})
	require.NoError(s.t, err)
	defer c.Close()
	reply := c.Do(context.Background(), c.B().Arbitrary(args...).Build())
	require.NoError(s.t, reply.Error(), args)
	if number, err := reply.ToInt64(); err == nil {
		return strconv.FormatInt(number, 10)
	}
	text, err := reply.ToString()
	if err != nil {
		text = fmt.Sprint(reply)
	}
	return text
}

// config returns a configuration for the server.
func (s *server) config() redisbroker.Config { return configOf(s) }

func configOf(servers ...*server) (cfg redisbroker.Config) {
	for _, s := range servers {
		cfg.Options.InitAddress = append(cfg.Options.InitAddress, s.address())
	}
	return cfg
}

// newSentinel starts a Sentinel that watches a primary as "main" and replaces it on its own.
func newSentinel(t testing.TB, primary *server) *server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\n", primary.port) +
		"sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 5000\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return newServerWithFile(t, []string{file}, "--sentinel")
}

// newCluster starts a Redis Cluster of three servers, each with a third of the slots.
func newCluster(t *testing.T) []*server {
	t.Helper()
	var servers []*server
	for i := range 3 {
		s := newServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
		first, last := i*16384/3, (i+1)*16384/3-1
		s.do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		s.do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		servers = append(servers, s)
	}
	for _, s := range servers[1:] {
		s.do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(servers[0].port))
	}
	for _, s := range servers {
		eventually(t, func() bool {
			info := s.do("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_size:3")
		}, "the cluster does not come up")
	}
	return servers
}
