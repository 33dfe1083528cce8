package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience bounds each wait, because the machine may be busy.
const patience = time.Minute

// secret is the key of all processes.
var secret = key("0123456789abcdef0123456789abcdef")

// binary builds the service once, as its Dockerfile does.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "service")
	if err != nil {
		return "", err
	}
	command, err := buildCommand(filepath.Join(dir, "service"))
	if err != nil {
		return "", err
	}
	output, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return filepath.Join(dir, "service"), nil
})

// buildCommand returns the build line of the Dockerfile, which builds the program in the given place.
func buildCommand(out string) (string, error) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		return "", err
	}
	_, command, found := strings.Cut(string(text), "\nRUN ")
	command, _, ended := strings.Cut(command, "\n")
	if !found || !ended || strings.Count(command, " /service ") != 1 {
		return "", fmt.Errorf("no build line: %q", command)
	}
	return "cd ../.. && " + strings.Replace(command, " /service ", " "+out+" ", 1), nil
}

func TestMain(m *testing.M) {
	status := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(status)
}

// service is a running process. Not safe for concurrent use.
type service struct {
	t                *testing.T
	process          *os.Process
	clients, private string // addresses
	logs             chan logLine
	ended            chan error
}

// logLine is one line of a process's log.
type logLine struct {
	Msg, Level, Clients, Private, Error string
	Stats                               map[string]any
}

// start starts a process on free ports, with the environment and arguments of the test.
func start(t *testing.T, env []string, args ...string) *service {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, secret, 0o600))
	const here = "127.0.0.1:0"
	args = append([]string{"-listen=" + here, "-private=" + here, "-key-file=" + file, "-connections=1000"}, args...)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	require.NoError(t, cmd.Start())
	s := &service{t: t, process: cmd.Process, logs: make(chan logLine, 1000), ended: make(chan error, 1)}
	exited := make(chan struct{})
	go func() { // until the process ends
		defer close(exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line logLine
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				line.Msg = "not JSON: " + lines.Text()
			}
			s.logs <- line
		}
		close(s.logs)
		s.ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless it has ended
		for range s.logs {     // a full channel would stop the goroutine
		}
		<-exited // which has read all output
		assert.Empty(t, stdout.String())
	})
	line := s.logged("service listens")
	s.clients, s.private = line.Clients, line.Private
	return s
}

// logged waits for a line of the log.
func (s *service) logged(msg string) logLine {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-s.logs:
			require.True(s.t, ok, "the process ended before it logged %q", msg)
			require.NotContains(s.t, line.Msg, "not JSON")
			if line.Msg == msg {
				return line
			}
		case <-deadline:
			require.Fail(s.t, "not logged", msg)
		}
	}
}

// terminate sends SIGTERM.
func (s *service) terminate() {
	s.t.Helper()
	require.NoError(s.t, s.process.Signal(syscall.SIGTERM))
}

// wait waits for the end of the process, and returns its error.
func (s *service) wait() error {
	s.t.Helper()
	go func() {
		for range s.logs { // a full pipe would stop the process
		}
	}()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		require.Fail(s.t, "the process does not end")
		return nil
	}
}

// get returns the status and the body of a page.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// peer is a connected client. Not safe for concurrent use.
type peer struct {
	t        *testing.T
	conn     net.Conn
	rw       io.ReadWriter
	protocol string
	notices  []envelope // read while the peer waited for an answer
	requests int
}

// envelope is a message of the service.
type envelope struct {
	Type      string          `json:"type"`
	Event     string          `json:"event"`
	RequestID string          `json:"request_id"`
	Code      int             `json:"code"`
	Data      json.RawMessage `json:"data"`
}

// tryDial connects with the header and subprotocols.
func (s *service) tryDial(header http.Header, protocols ...string) (*peer, error) {
	d := gobwas.Dialer{Timeout: patience, Header: gobwas.HandshakeHeaderHTTP(header), Protocols: protocols}
	conn, early, hs, err := d.Dial(context.Background(), "ws://"+s.clients+"/ws")
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	p := &peer{t: s.t, conn: conn, rw: conn, protocol: hs.Protocol}
	if early != nil {
		p.rw = struct {
			io.Reader
			io.Writer
		}{early, conn}
	}
	return p, conn.SetDeadline(time.Now().Add(2 * patience))
}

// dial connects a user as a browser does.
func (s *service) dial(user, protocol string) *peer {
	s.t.Helper()
	p, err := s.tryDial(nil, protocol, "bearer."+secret.sign(user, time.Now().Add(time.Hour)))
	require.NoError(s.t, err)
	return p
}

// request sends a request and returns its answer.
func (p *peer) request(event string, data any) envelope {
	p.t.Helper()
	p.requests++
	id := fmt.Sprint(p.requests)
	text, err := json.Marshal(map[string]any{"type": "request", "event": event, "request_id": id, "data": data})
	require.NoError(p.t, err)
	require.NoError(p.t, p.write(gobwas.NewTextFrame(text)))
	for {
		got, err := p.read()
		require.NoError(p.t, err)
		if got.RequestID == id {
			return got
		}
		p.notices = append(p.notices, got)
	}
}

// expect waits for a notification of that event.
func (p *peer) expect(event string) json.RawMessage {
	p.t.Helper()
	for i := 0; ; i++ {
		if i == len(p.notices) {
			got, err := p.read()
			require.NoError(p.t, err)
			p.notices = append(p.notices, got)
		}
		if got := p.notices[i]; got.Event == event {
			p.notices = append(p.notices[:i], p.notices[i+1:]...)
			return got.Data
		}
	}
}

// expectClose waits for the server's close frame, after any messages.
func (p *peer) expectClose() closeError {
	p.t.Helper()
	for {
		_, err := p.read()
		var closed closeError
		if err == nil {
			continue
		}
		require.ErrorAs(p.t, err, &closed)
		return closed
	}
}

// read returns the next message. It answers pings, and a close frame, which is its error.
func (p *peer) read() (got envelope, err error) {
	for {
		h, err := gobwas.ReadHeader(p.rw)
		if err != nil {
			return got, err
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(p.rw, payload); err != nil {
			return got, err
		}
		switch h.OpCode {
		case gobwas.OpPing:
			err = p.write(gobwas.NewPongFrame(payload))
		case gobwas.OpClose:
			code, reason := gobwas.ParseCloseFrameData(payload)
			err = errors.Join(p.write(gobwas.NewCloseFrame(payload)), closeError{int(code), reason})
		default:
			return got, json.Unmarshal(payload, &got)
		}
		if err != nil {
			return got, err
		}
	}
}

func (p *peer) write(f gobwas.Frame) error {
	return gobwas.WriteFrame(p.conn, gobwas.MaskFrame(f))
}

// closeError is a close frame of the server.
type closeError struct {
	code   int
	reason string
}

func (e closeError) Error() string { return fmt.Sprint(e.code, e.reason) }
