package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wait bounds each step of a test, generously: the machine may be busy.
const wait = 10 * time.Second

func TestChatAcrossBothPaths(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	ada, linus := dial(t, s.page), dial(t, s.native)

	adaID := ada.join("Ada", "lobby")
	ada.reads("presence", func(d envelopeData) bool { return d.Count == 1 })
	linus.join("Linus", "lobby")
	for _, p := range []*peer{ada, linus} {
		d := p.reads("presence", func(d envelopeData) bool { return d.Count == 2 })
		require.Len(t, d.Members, 2)
		assert.Equal(t, member{ID: adaID, Name: "Ada"}, d.Members[0])
		assert.Equal(t, "Linus", d.Members[1].Name)
	}

	require.Equal(t, 200, ada.request("chat.send", `{"text":" Hello, native "}`).Code)
	require.Equal(t, 200, linus.request("chat.send", `{"text":"Hello, net/http"}`).Code)
	for _, p := range []*peer{ada, linus} { // senders included, in the same order
		d := p.reads("chat.message", nil)
		assert.Equal(t, envelopeData{ID: adaID, Name: "Ada", Text: "Hello, native"}, d)
		assert.Equal(t, "Hello, net/http", p.reads("chat.message", nil).Text)
	}
	ada.reads("stats", func(d envelopeData) bool { return d.Connections == 2 })
}

func TestPresenceFollowsLeaversAndLostConnections(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	stays, leaves, falls := dial(t, s.page), dial(t, s.page), dial(t, s.native)
	for name, p := range map[string]*peer{"stays": stays, "leaves": leaves, "falls": falls} {
		p.join(name, "lobby")
	}
	stays.reads("presence", func(d envelopeData) bool { return d.Count == 3 })
	require.Equal(t, 200, leaves.request("chat.leave", `{}`).Code)
	stays.reads("presence", func(d envelopeData) bool { return d.Count == 2 })
	require.Equal(t, 409, leaves.request("chat.send", `{"text":"still there?"}`).Code)
	require.NoError(t, falls.conn.Close())
	stays.reads("presence", func(d envelopeData) bool { return d.Count == 1 && d.Members[0].Name == "stays" })
}

// Names that look the same are the same.
func TestNamesHaveVisibleCharacters(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	p := dial(t, s.page)
	answer := p.request("chat.join", `{"name":"A\u200bd\u0000a\u202e\u00ad","room":"lo\u2060bby\u2028"}`)
	require.Equal(t, 200, answer.Code)
	d := p.reads("presence", nil)
	assert.Equal(t, "lobby", d.Room)
	assert.Equal(t, "Ada", d.Members[0].Name)
}

func TestRefusals(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	p := dial(t, s.page)
	tests := map[string]struct {
		event, data string
		code        int
	}{
		"empty name":        {"chat.join", `{"name":" ","room":"lobby"}`, 400},
		"invisible name":    {"chat.join", `{"name":"\u200b\u2060\u3164","room":"lobby"}`, 400},
		"long name":         {"chat.join", `{"name":"1234567890123456789012345","room":"lobby"}`, 400},
		"empty room":        {"chat.join", `{"name":"Ada","room":""}`, 400},
		"name of no string": {"chat.join", `{"name":7}`, 400},
		"no room joined":    {"chat.send", `{"text":"hello"}`, 409},
		"unknown event":     {"chat.shout", `{}`, 404},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			answer := p.request(tt.event, tt.data)
			assert.Equal(t, "error", answer.Type)
			assert.Equal(t, tt.code, answer.Code)
		})
	}
	p.join("Ada", "lobby")
	assert.Equal(t, 400, p.request("chat.send", `{"text":"  "}`).Code)
}

func TestShutdownClosesClientsWithGoingAway(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	peers := []*peer{dial(t, s.page), dial(t, s.native)}
	s.stop()
	for _, p := range peers {
		assert.Equal(t, gobwas.StatusGoingAway, p.readsClose())
	}
	require.NoError(t, s.wait())
}

// The server closes first at a shutdown, so that its old connections linger on the port.
func TestRestartOnTheSameNativePort(t *testing.T) {
	first := startServer(t, "127.0.0.1:0")
	p := dial(t, first.native)
	p.join("Ada", "lobby")
	first.stop()
	require.Equal(t, gobwas.StatusGoingAway, p.readsClose())
	require.NoError(t, first.wait())

	second := startServer(t, first.native)
	assert.Equal(t, first.native, second.native)
	dial(t, second.native).join("Ada", "lobby")
}

func TestWithoutNativePath(t *testing.T) {
	s := startServer(t, "")
	assert.Empty(t, s.native)
	dial(t, s.page).join("Ada", "lobby")
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, args := range map[string][2]string{
		"page":   {taken.Addr().String(), ""},
		"native": {"127.0.0.1:0", taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), args[0], args[1], nil)
			assert.ErrorContains(t, err, taken.Addr().String())
		})
	}
}

func TestPageIsServed(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	for path, contentType := range map[string]string{
		"/":          "text/html",
		"/chat.js":   "javascript",
		"/style.css": "text/css",
		"/icon.svg":  "svg",
	} {
		res, err := http.Get("http://" + s.page + path)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 200, res.StatusCode, path)
		assert.Contains(t, res.Header.Get("Content-Type"), contentType, path)
	}
}

func TestSameHost(t *testing.T) {
	tests := map[string]struct {
		host, origin string
		want         bool
	}{
		"no browser":        {"chat.example:8081", "", true},
		"another port":      {"chat.example:8081", "http://chat.example:8080", true},
		"another case":      {"chat.example", "https://Chat.Example", true},
		"IPv6":              {"[::1]:8081", "http://[::1]:8080", true},
		"another host":      {"chat.example:8081", "http://evil.example:8081", false},
		"longer host":       {"chat.example", "http://chat.example.evil.example", false},
		"user info":         {"chat.example", "http://chat.example@evil.example", false},
		"opaque origin":     {"chat.example", "null", false},
		"malformed":         {"chat.example", "http://%zz", false},
		"no host to be had": {"", "null", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/ws", nil)
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			assert.Equal(t, tt.want, sameHost(r))
		})
	}
}

// server is a running chat with its addresses.
type server struct {
	page, native string
	stop         context.CancelFunc
	wait         func() error
}

func startServer(t *testing.T, native string) *server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", native, ready) }()
	s := &server{stop: stop}
	var result error
	s.wait = func() error {
		if ended != nil {
			result, ended = <-ended, nil
		}
		return result
	}
	t.Cleanup(func() {
		stop()
		assert.NoError(t, s.wait())
	})
	select {
	case s.page = <-ready:
	case err := <-ended:
		ended, result = nil, err
		require.NoError(t, err)
	}
	res, err := http.Get("http://" + s.page + "/config.json")
	require.NoError(t, err)
	defer res.Body.Close()
	var config struct {
		NativePort string `json:"native_port"`
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&config))
	if config.NativePort != "" {
		s.native = net.JoinHostPort("127.0.0.1", config.NativePort)
	}
	return s
}

// peer is a gobwas/ws client that speaks the envelope.
type peer struct {
	t        *testing.T
	conn     net.Conn
	rw       io.ReadWriter
	pushed   []envelope // notifications read while looking for an answer
	requests int
}

type envelope struct {
	Type      string       `json:"type"`
	Event     string       `json:"event"`
	RequestID string       `json:"request_id"`
	Code      int          `json:"code"`
	Data      envelopeData `json:"data"`
}

// envelopeData has the fields of every data object that the chat sends.
type envelopeData struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Text        string   `json:"text"`
	Room        string   `json:"room"`
	Count       int      `json:"count"`
	Members     []member `json:"members"`
	Connections int      `json:"connections"`
	PerSecond   float64  `json:"messages_per_second"`
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	conn, buffered, _, err := gobwas.Dial(ctx, "ws://"+addr+"/ws")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	if buffered == nil {
		buffered = bufio.NewReader(conn)
	}
	rw := struct {
		io.Reader
		io.Writer
	}{buffered, conn}
	return &peer{t: t, conn: conn, rw: rw}
}

// read returns the next message, or the error that ended the connection.
func (p *peer) read() (envelope, error) {
	var e envelope
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(wait)))
	b, err := wsutil.ReadServerText(p.rw)
	if err != nil {
		return e, err
	}
	require.NoError(p.t, json.Unmarshal(b, &e), "%s", b)
	return e, nil
}

// request sends a request and returns its answer.
func (p *peer) request(event, data string) envelope {
	p.t.Helper()
	p.requests++
	id := fmt.Sprintf("req_%d", p.requests)
	message := fmt.Sprintf(`{"type":"request","event":%q,"request_id":%q,"data":%s}`, event, id, data)
	require.NoError(p.t, wsutil.WriteClientText(p.rw, []byte(message)))
	for {
		e, err := p.read()
		require.NoError(p.t, err)
		if e.RequestID == id {
			return e
		}
		p.pushed = append(p.pushed, e)
	}
}

// join joins a room and returns the client's ID.
func (p *peer) join(name, room string) string {
	p.t.Helper()
	answer := p.request("chat.join", fmt.Sprintf(`{"name":%q,"room":%q}`, name, room))
	require.Equal(p.t, 200, answer.Code)
	require.NotEmpty(p.t, answer.Data.ID)
	return answer.Data.ID
}

// reads returns the next notification of that event that matches; nil matches all.
func (p *peer) reads(event string, matches func(envelopeData) bool) envelopeData {
	p.t.Helper()
	for {
		var e envelope
		if len(p.pushed) > 0 {
			e, p.pushed = p.pushed[0], p.pushed[1:]
		} else {
			var err error
			e, err = p.read()
			require.NoError(p.t, err, "waiting for %s", event)
		}
		if e.Event == event && (matches == nil || matches(e.Data)) {
			assert.Equal(p.t, "notify", e.Type)
			return e.Data
		}
	}
}

// readsClose reads until the server closes, and returns its close code.
func (p *peer) readsClose() gobwas.StatusCode {
	p.t.Helper()
	for {
		if _, err := p.read(); err != nil {
			var closed wsutil.ClosedError
			require.ErrorAs(p.t, err, &closed)
			return closed.Code
		}
	}
}
