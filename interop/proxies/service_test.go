package proxies_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// program is examples/service, built for one test.
type program struct{ binary, key string }

// buildService builds examples/service.
func buildService(t *testing.T) program {
	t.Helper()
	dir := t.TempDir()
	p := program{binary: filepath.Join(dir, "service"), key: filepath.Join(dir, "key")}
	build := exec.Command("go", "build", "-o", p.binary, ".")
	build.Dir = "../../examples/service"
	build.Env = append(os.Environ(), "GOWORK=off")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.NoError(t, os.WriteFile(p.key, bytes.Repeat([]byte("key!"), 8), 0o600))
	return p
}

// token returns a token for a user.
func (p program) token(t *testing.T, user string) string {
	t.Helper()
	output, err := exec.Command(p.binary, "-key-file="+p.key, "-sign="+user).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(output))
}

// service is a process of examples/service that a test starts again and again.
type service struct {
	t             *testing.T
	program       program
	addr, private string
	args          []string

	cmd *exec.Cmd
	log chan string // the lines of the log; closed at the end of the process
}

// newService starts a process with args on ports of its own, until the end of the test.
func newService(t *testing.T, p program, args ...string) *service {
	t.Helper()
	s := &service{t: t, program: p, args: args}
	s.addr = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.private = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.start()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // unless it has ended
		for range s.log {
		}
		_ = s.cmd.Wait()
	})
	return s
}

// start starts the process, and waits until it is ready.
func (s *service) start() {
	s.t.Helper()
	args := append([]string{"-listen=" + s.addr, "-private=" + s.private, "-key-file=" + s.program.key}, s.args...)
	s.cmd = exec.Command(s.program.binary, args...)
	stderr, err := s.cmd.StderrPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, s.cmd.Start())
	s.log = make(chan string, 4096)
	go func() { // until the end of the process
		defer close(s.log)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			select {
			case s.log <- lines.Text():
			default: // nobody reads that many
			}
		}
	}()
	eventually(s.t, func() bool {
		resp, err := http.Get("http://" + s.addr + "/readyz")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, "the service is not ready")
}

// drained is the last line of the log of a process that has drained.
type drained struct {
	Stats struct {
		Total, Moved, Closed, Forced, Remaining int
		Pace                                    float64
	}
	Refused map[string]int
}

// drain ends the process with SIGTERM, and waits for its end.
func (s *service) drain() (d drained) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	found := false
	for line := range s.log {
		if strings.Contains(line, `"service drained"`) {
			require.NoError(s.t, json.Unmarshal([]byte(line), &d))
			found = true
		}
	}
	require.NoError(s.t, s.cmd.Wait())
	require.True(s.t, found, "no line about the drain")
	return d
}

var sample = regexp.MustCompile(`(?m)^(ws_\w+)(\{[^}]*\})? (\S+)$`)

// metrics returns the sums of the metrics of the process by their names.
func (s *service) metrics() map[string]float64 {
	s.t.Helper()
	resp, err := http.Get("http://" + s.private + "/metrics")
	require.NoError(s.t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	sums := make(map[string]float64)
	for _, found := range sample.FindAllStringSubmatch(string(page), -1) {
		value, err := strconv.ParseFloat(found[3], 64)
		require.NoError(s.t, err)
		sums[found[1]] += value
	}
	return sums
}
