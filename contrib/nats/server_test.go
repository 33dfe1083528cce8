package natsbroker_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// newServer starts an embedded server with the options, on a port of its own if they have none.
func newServer(t *testing.T, o natsserver.Options) *natsserver.Server {
	t.Helper()
	o.Host, o.NoSigs, o.NoLog = "127.0.0.1", true, true
	if o.Port == 0 {
		o.Port = natsserver.RANDOM_PORT
	}
	s, err := natsserver.NewServer(&o)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(patience), "the server does not start")
	return s
}

// restart stops a server and starts another one on its port.
func restart(t *testing.T, s *natsserver.Server, o natsserver.Options) *natsserver.Server {
	t.Helper()
	s.Shutdown()
	s.WaitForShutdown()
	return newServer(t, o)
}

// givenPorts are the ports that freePort has returned.
var givenPorts sync.Map

// freePort returns a port on which nobody listens, another one for each call, below the ports that
// the kernel gives to clients, so that nobody takes it before the server does, or while it is down.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		if _, given := givenPorts.LoadOrStore(port, nil); given {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.Fail(t, "no free port")
	return 0
}

// urlOf returns the URL of a port.
func urlOf(port int) string { return fmt.Sprintf("nats://127.0.0.1:%d", port) }

// newCluster starts three embedded servers with routes between them.
func newCluster(t *testing.T) []*natsserver.Server {
	t.Helper()
	var servers []*natsserver.Server
	var routes []*url.URL
	for i := range 3 {
		o := natsserver.Options{ServerName: fmt.Sprint("s", i), LameDuckGracePeriod: 1, LameDuckDuration: time.Second}
		o.Cluster = natsserver.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: natsserver.RANDOM_PORT}
		o.Routes = routes
		s := newServer(t, o)
		servers = append(servers, s)
		routes = []*url.URL{{Scheme: "nats", Host: servers[0].ClusterAddr().String()}}
	}
	for _, s := range servers {
		eventually(t, func() bool { return s.NumRoutes() > 0 && len(peers(s)) == 2 }, "no routes")
	}
	return servers
}

// peers returns the names of the servers that a server of a cluster has routes to.
func peers(s *natsserver.Server) map[string]bool {
	names := make(map[string]bool)
	if z, err := s.Routez(nil); err == nil {
		for _, r := range z.Routes {
			names[r.RemoteName] = true
		}
	}
	return names
}

// serverConfig is the environment variable by which a process of this test is a server.
const serverConfig = "NATSBROKER_TEST_SERVER"

// processConfig is the configuration of a server in a process, as JSON.
type processConfig struct {
	Port, ClusterPort int
	Routes            []int  // of a cluster with a store: all servers of it
	StoreDir          string // of JetStream, if it is not empty
}

// serve runs a server until the process is killed, or its parent has ended.
func serve(file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var c processConfig
	if err := json.Unmarshal(b, &c); err != nil {
		panic(err)
	}
	o := natsserver.Options{Host: "127.0.0.1", Port: c.Port, NoLog: true, NoSigs: true}
	if c.ClusterPort != 0 {
		o.Cluster = natsserver.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: c.ClusterPort}
		for _, p := range c.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
		}
	}
	routes := len(c.Routes)
	if c.StoreDir != "" {
		o.JetStream, o.StoreDir, o.ServerName = true, c.StoreDir, fmt.Sprint("s", c.Port)
		routes = 0 // the others start later
	}
	s, err := natsserver.NewServer(&o)
	if err != nil {
		panic(err)
	}
	s.Start()
	for range time.Tick(time.Millisecond) {
		if s.NumRoutes() >= routes && s.ReadyForConnections(time.Second) {
			break
		}
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// process is a server in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
}

// newProcess starts a server in a process of its own. It is killed with the test.
func newProcess(t *testing.T, c processConfig) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.json")
	b, err := json.Marshal(c)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, b, 0o600))
	p := &process{t, exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), serverConfig+"="+file)
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe() // its end stops the server if the test is killed
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		p.kill()
		_ = stdin.Close()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return p
}

// signal sends a signal. It returns from SIGSTOP when all threads of the process have stopped.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
	if s != syscall.SIGSTOP {
		return
	}
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if !errors.Is(err, syscall.EINTR) {
			require.NoError(p.t, err)
			require.True(p.t, status.Stopped())
			return
		}
	}
}

// kill ends the process at once, a stopped one too.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
