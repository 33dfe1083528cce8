package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestRooms(t *testing.T) {
	s := start(t, nil)
	ann, bob := s.dial("ann", "rooms.v1"), s.dial("bob", "rooms.v1")
	assert.Equal(t, "rooms.v1", ann.protocol)
	for _, p := range []*peer{ann, bob} {
		require.Equal(t, 200, p.request("join", "lobby").Code)
	}
	answer := ann.request("say", map[string]string{"user": "bob", "room": "lobby", "text": "hi"})
	require.Equal(t, 200, answer.Code)
	assert.Equal(t, "2", string(answer.Data))
	for _, p := range []*peer{ann, bob} {
		assert.JSONEq(t, `{"user":"ann","room":"lobby","text":"hi"}`, string(p.expect("said")))
	}
	assert.Equal(t, 404, ann.request("say", map[string]string{"room": "nowhere", "text": "hi"}).Code)
}

func TestTokens(t *testing.T) {
	s := start(t, nil)
	valid := secret.sign("ann", time.Now().Add(time.Hour))
	forged := key("another key of at least 32 bytes").sign("ann", time.Now().Add(time.Hour))
	expired := secret.sign("ann", time.Now().Add(-time.Second))
	tests := map[string]struct {
		header   http.Header
		protocol []string
		refused  bool
	}{
		"header":              {header: http.Header{"Authorization": {"Bearer " + valid}}},
		"subprotocol":         {protocol: []string{"rooms.v1", "bearer." + valid}},
		"no token":            {refused: true},
		"forged":              {header: http.Header{"Authorization": {"Bearer " + forged}}, refused: true},
		"expired":             {header: http.Header{"Authorization": {"Bearer " + expired}}, refused: true},
		"forged subprotocol":  {protocol: []string{"rooms.v1", "bearer." + forged}, refused: true},
		"expired subprotocol": {protocol: []string{"rooms.v1", "bearer." + expired}, refused: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := s.tryDial(tt.header, tt.protocol...)
			if tt.refused {
				require.ErrorIs(t, err, gobwas.StatusError(http.StatusUnauthorized))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 200, p.request("join", "lobby").Code)
		})
	}
}

func TestVerify(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	end := now.Add(time.Second)
	token := secret.sign("ann", end)
	user, err := secret.verify(token, now)
	require.NoError(t, err)
	assert.Equal(t, "ann", user)
	_, err = secret.verify(token, end)
	assert.Error(t, err, "at its end")

	for i := range len(token) { // each byte counts
		changed := []byte(token)
		changed[i] ^= 1
		_, err := secret.verify(string(changed), now)
		assert.Error(t, err, "%s", changed)
	}
	for i := range len(token) {
		_, err := secret.verify(token[:i], now)
		assert.Error(t, err, token[:i])
	}
	parts := strings.Split(token, ".")
	for _, malformed := range []string{
		"", ".", "..", "...", parts[0], token + ".", token + "=", " " + token,
		parts[0] + ".0" + parts[1] + "." + parts[2], parts[0] + ".+" + parts[1] + "." + parts[2],
		parts[0] + "=." + parts[1] + "." + parts[2],
	} {
		_, err := secret.verify(malformed, now)
		assert.Error(t, err, malformed)
	}
}

func TestConfiguration(t *testing.T) {
	path, err := binary()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, secret, 0o600))
	short := filepath.Join(t.TempDir(), "short")
	require.NoError(t, os.WriteFile(short, secret[:31], 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	tests := map[string]struct {
		env, args []string
		want      string
	}{
		"no key":                 {nil, nil, "-key-file must have 32 bytes"},
		"short key":              {nil, []string{"-key-file=" + short}, "-key-file must have 32 bytes"},
		"key of the environment": {[]string{"WS_KEY_FILE=" + short}, nil, "-key-file must have 32 bytes"},
		"malformed environment":  {[]string{"WS_GRACE=soon"}, nil, `WS_GRACE=\"soon\" is no value for -grace`},
		"malformed flag":         {nil, []string{"-grace=soon"}, `invalid value "soon"`},
		"value beyond its range": {[]string{"WS_KEY_FILE=" + file}, []string{"-connections=-1"}, "MaxConnections"},
		"address in use":         {[]string{"WS_KEY_FILE=" + file}, []string{"-private=" + taken.Addr().String()}, "in use"},
		"address of clients": {
			[]string{"WS_KEY_FILE=" + file, "WS_PRIVATE=127.0.0.1:0"}, []string{"-listen=" + taken.Addr().String()}, "in use",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(path, tt.args...)
			cmd.Env = append(os.Environ(), tt.env...)
			output, err := cmd.CombinedOutput()
			assert.Error(t, err)
			assert.Contains(t, string(output), tt.want)
		})
	}
}

func TestSign(t *testing.T) {
	path, err := binary()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, secret, 0o600))
	output, err := exec.Command(path, "-key-file", file, "-sign", "ann").Output()
	require.NoError(t, err)
	token := strings.TrimSpace(string(output))
	user, err := secret.verify(token, time.Now())
	require.NoError(t, err)
	assert.Equal(t, "ann", user)
	_, err = secret.verify(token, time.Now().Add(25*time.Hour))
	assert.Error(t, err)
}

func TestPagesOfOperators(t *testing.T) {
	s := start(t, nil)
	s.dial("ann", "rooms.v1").request("join", "lobby")
	for _, path := range []string{"/healthz", "/readyz"} {
		status, _ := get(t, "http://"+s.clients+path)
		assert.Equal(t, 200, status, path)
	}
	status, page := get(t, "http://"+s.private+"/metrics")
	assert.Equal(t, 200, status)
	for _, line := range []string{"\nws_clients 1\n", "\nws_rooms 1\n", "\ngo_goroutines ", "\nprocess_open_fds "} {
		assert.Contains(t, page, line)
	}
	status, page = get(t, "http://"+s.private+"/inspect/")
	assert.Equal(t, 200, status)
	assert.Contains(t, page, "<html")
	status, page = get(t, "http://"+s.private+"/inspect/api/client?user=ann")
	assert.Equal(t, 200, status)
	assert.Contains(t, page, `"lobby"`)
	for _, path := range []string{"/metrics", "/inspect/"} { // not for clients
		status, _ := get(t, "http://"+s.clients+path)
		assert.Equal(t, 404, status, path)
	}
}

// SIGTERM moves the clients: nothing that was queued before is lost.
func TestDrain(t *testing.T) {
	const texts = 40
	s := start(t, []string{"WS_GRACE=100ms", "WS_WINDOW=1s"}, "-settle=100ms")
	old, able := s.dial("old", "rooms.v1"), s.dial("able", "rooms.v2")
	for _, p := range []*peer{old, able} {
		require.Equal(t, 200, p.request("join", "lobby").Code)
	}
	for range texts {
		require.Equal(t, 200, able.request("say", map[string]string{"room": "lobby", "text": "hi"}).Code)
	}
	s.terminate()
	able.expect("ws.reconnect") // it does not move, so it is closed after the settling time
	for _, p := range []*peer{old, able} {
		got := len(p.notices)
		for {
			envelope, err := p.read()
			if err != nil {
				break
			}
			if envelope.Event == "said" {
				got++
			}
		}
		assert.Equal(t, texts, got)
	}
	line := s.logged("service drained")
	assert.EqualValues(t, 2, line.Stats["Total"])
	assert.NoError(t, s.wait())
}

// A client reads the time after which it reconnects.
func TestCloseOfADrain(t *testing.T) {
	s := start(t, nil, "-grace=-1s", "-window=1s", "-settle=100ms")
	p := s.dial("ann", "rooms.v1")
	s.terminate()
	closed := p.expectClose()
	assert.EqualValues(t, 1012, closed.code)
	var reason struct {
		Retry *int `json:"retry_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(closed.reason), &reason))
	require.NotNil(t, reason.Retry)
	assert.NoError(t, s.wait())
}

func TestSecondSignal(t *testing.T) {
	s := start(t, nil, "-grace=1h")
	p := s.dial("ann", "rooms.v1")
	s.terminate()
	for deadline := time.Now().Add(patience); ; {
		if status, _ := get(t, "http://"+s.clients+"/readyz"); status == 503 {
			break
		}
		require.True(t, time.Now().Before(deadline), "still ready")
	}
	assert.Equal(t, 200, p.request("join", "lobby").Code, "clients stay in the time of grace")
	s.terminate()
	_ = s.wait()
	_, err := p.read()
	assert.Error(t, err)
}

// systemd reads READY=1 when the service listens, and STOPPING=1 when it drains.
func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer socket.Close()
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(patience)))
	s := start(t, []string{"NOTIFY_SOCKET=" + path}, "-grace=-1s", "-window=10ms")
	read := func() string {
		buf := make([]byte, 100)
		n, err := socket.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	assert.Equal(t, "READY=1", read())
	status, _ := get(t, "http://"+s.clients+"/readyz")
	assert.Equal(t, 200, status)
	s.terminate()
	assert.Equal(t, "STOPPING=1", read())
	assert.NoError(t, s.wait())
}

func TestSystemdUnit(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	text, err := os.ReadFile("service@.service")
	require.NoError(t, err)
	path, err := binary()
	require.NoError(t, err)
	unit := filepath.Join(t.TempDir(), "service@8081.service")
	installed := strings.Replace(string(text), "/usr/local/bin/service", path, 1)
	require.NotEqual(t, string(text), installed)
	require.NoError(t, os.WriteFile(unit, []byte(installed), 0o600))
	output, err := exec.Command(verify, "verify", "--man=no", unit).CombinedOutput()
	assert.NoError(t, err, "%s", output)
	assert.NotContains(t, string(output), "service@8081")
}

// The supervisors wait longer than a drain may take.
func TestTimesOfSupervisors(t *testing.T) {
	const shutdown = 10 * time.Second // in run
	read := func(file, pattern string) time.Duration {
		t.Helper()
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := regexp.MustCompile(pattern).FindSubmatch(text)
		require.NotNil(t, found, "%s: %s", file, pattern)
		d, err := time.ParseDuration(string(found[1]))
		if err != nil {
			seconds, err := strconv.Atoi(string(found[1]))
			require.NoError(t, err)
			d = time.Duration(seconds) * time.Second
		}
		return d
	}
	const unit = "service@.service"
	drain := read(unit, `WS_GRACE=(\S+)`) + read(unit, `WS_WINDOW=(\S+)`) + read(unit, `WS_SETTLE=(\S+)`)
	assert.Greater(t, read(unit, `(?m)^TimeoutStopSec=(\S+)`), drain+shutdown)

	const pod = "kubernetes.yaml"
	drain = read(pod, `"-grace=([^"]+)"`) + read(pod, `"-window=([^"]+)"`) + read(pod, `"-settle=([^"]+)"`)
	before := read(pod, `sleep: { seconds: (\d+) }`)
	assert.Greater(t, read(pod, `terminationGracePeriodSeconds: (\d+)`), before+drain+shutdown)
	assert.GreaterOrEqual(t, read(pod, `minReadySeconds: (\d+)`), before+drain)
}

// The flags and variables in the files beside the program exist, and take their values.
func TestFlagsOfDeployments(t *testing.T) {
	tests := map[string]string{
		"kubernetes.yaml":  `"-([a-z-]+)=([^"]*)"`,
		"service@.service": `\bWS_([A-Z_]+)=(\S+)`,
	}
	for file, pattern := range tests {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
		require.GreaterOrEqual(t, len(found), 5, file)
		for _, one := range found {
			f := flag.Lookup(strings.ToLower(strings.ReplaceAll(one[1], "_", "-")))
			require.NotNil(t, f, "%s: %s", file, one[0])
			before := f.Value.String()
			assert.NoError(t, f.Value.Set(one[2]), "%s: %s", file, one[0])
			require.NoError(t, f.Value.Set(before))
		}
	}
}

// The manifest is YAML, and its probes and its Service name ports of the container.
func TestManifest(t *testing.T) {
	text, err := os.ReadFile("kubernetes.yaml")
	require.NoError(t, err)
	var kinds []string
	for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var object struct {
			Kind string
			Spec map[string]any
		}
		err := documents.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.NotEmpty(t, object.Spec)
		kinds = append(kinds, object.Kind)
	}
	assert.Equal(t, []string{"Deployment", "Service"}, kinds)
	ports := regexp.MustCompile(`(?:port|targetPort): ([a-z]+)`).FindAllSubmatch(text, -1)
	require.Len(t, ports, 3)
	for _, port := range ports {
		assert.Contains(t, string(text), "{ name: "+string(port[1])+", containerPort: ")
	}
}

// docs/operations.md has the code that is tested here.
func TestDocumentedDrain(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, code, _ := strings.Cut(string(page), "```go\n")
	code, _, ended := strings.Cut(code, "```")
	require.True(t, ended)
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	assert.Contains(t, string(program), "\n"+code+"\n")
}

// The program stays short enough to be read at once.
func TestLength(t *testing.T) {
	lines := 0
	for _, file := range []string{"main.go", "token.go"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		lines += strings.Count(string(text), "\n")
	}
	assert.Less(t, lines, 200)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	assert.Len(t, files, 4, "with two files of tests")
}
