package cluster_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The environment variables by which the binary is another program than the test.
const (
	roleVariable   = "CLUSTER_TEST_ROLE"
	configVariable = "CLUSTER_TEST_CONFIG"

	roleNode = "node"
	roleNATS = "nats"
)

// subnet is the first three bytes of this test's own addresses. No other program uses them, so
// their ports are free, also after a restart.
var subnet = fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(256))

// process is a child of the test. It ends with the test that owns it, or when that is killed. Not safe for
// concurrent use.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // of its standard output; closed at its end
	errs  lastBytes
	ended bool
}

// spawn starts this binary in a role, behind the words of a command that executes it.
func spawn(t, owner *testing.T, name, role string, config any, before ...string) *process {
	t.Helper()
	encoded, err := json.Marshal(config)
	require.NoError(t, err)
	words := append(before, os.Args[0])
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, configVariable+"="+string(encoded))
	p := start(t, owner, name, cmd)
	require.Equal(t, "ready", p.line(t))
	return p
}

// start starts a command, which ends with its owner.
func start(t, owner *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, lines: make(chan string, 1000)}
	cmd.Env = append(cmd.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Stderr = &p.errs
	var err error
	p.stdin, err = cmd.StdinPipe() // its end stops this binary, too
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() { // ends with the process
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			select {
			case p.lines <- scanner.Text():
			default: // nobody reads the log of a server
			}
		}
	}()
	owner.Cleanup(func() {
		p.kill()
		if owner.Failed() {
			owner.Logf("%s, standard error:\n%s", name, p.errs.String())
		}
	})
	return p
}

// line returns the next line of the standard output.
func (p *process) line(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-p.lines:
		require.True(t, ok, "%s has ended: %s", p.name, &p.errs)
		return line
	case <-time.After(patience):
		require.Fail(t, p.name+" is silent")
	}
	return ""
}

// ask sends a command to this binary in another role, and decodes the answer into reply.
func (p *process) ask(t *testing.T, command string, reply any) {
	t.Helper()
	_, err := io.WriteString(p.stdin, command+"\n")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(p.line(t)), reply))
}

// kill ends the process and its children at once, stopped ones too, and waits for its end.
func (p *process) kill() {
	if !p.ended { // the number is still its own
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		p.wait()
	}
}

// wait waits for the end of the process.
func (p *process) wait() {
	for range p.lines { // until the end of the output, which is the end of the process
		continue
	}
	_ = p.cmd.Wait()
	p.ended = true
}

// lastBytes keeps the end of all that is written. Safe for concurrent use.
type lastBytes struct {
	mu    sync.Mutex
	bytes []byte // guarded by mu
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = append(l.bytes, p...)
	l.bytes = bytes.Clone(l.bytes[max(0, len(l.bytes)-16<<10):])
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.bytes)
}
