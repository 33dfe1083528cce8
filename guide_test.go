package ws_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

type said struct{ Text string }

// newGuideChat returns a Manager with the handlers of docs/guide.md.
func newGuideChat(t *testing.T) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager()
	require.NoError(t, err)
	m.Use(func(c *ws.Client, msg *ws.Message, next ws.NextFunc) error {
		from := time.Now()
		err := next()
		slog.Info("handled", "event", msg.Event, "client", c.ID, "took", time.Since(from), "error", err)
		return err
	})
	require.NoError(t, ws.Handle0(m, "join", func(c *ws.Client, room *string) error {
		return c.JoinRoom(*room)
	}))
	require.NoError(t, ws.Handle0(m, "say", func(c *ws.Client, _ *said) error {
		notify, err := ws.NewNotifyMessageSimple("said", said{Text: "hi"})
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(notify)
		if err != nil {
			return err
		}
		return m.BroadcastToRoom("lobby", encoded, c) // everybody but c
	}))
	return m
}

func TestGuideChat(t *testing.T) {
	m := newGuideChat(t)
	s := wstest.Start(t, m)
	ann, bob := s.Dial(nil), s.Dial(nil)
	ann.Request("join", "lobby")
	bob.Request("join", "lobby")
	if reply := ann.Request("say", said{Text: "hi"}); reply.Code != 200 {
		t.Fatalf("%d %s", reply.Code, reply.Message)
	}
	var got said
	bob.Expect("said", &got)
	assert.Equal(t, "hi", got.Text)
}

func writeMetrics(w io.Writer, st *ws.Stats) {
	metric := func(name, kind, help string, value any) {
		fmt.Fprintf(w, "# HELP %[1]s %[3]s\n# TYPE %[1]s %[2]s\n%[1]s %[4]v\n", name, kind, help, value)
	}
	total := &st.Total
	metric("ws_clients", "gauge", "Connected clients.", st.Clients)
	metric("ws_rooms", "gauge", "Rooms.", st.Rooms)
	metric("ws_paused_connections", "gauge", "Connections that wait for their handlers.", total.Paused)
	metric("ws_messages_received_total", "counter", "Data messages received.", total.MessagesIn)
	metric("ws_messages_sent_total", "counter", "Data messages sent.", total.MessagesOut)
	metric("ws_messages_lost_total", "counter", "Messages that clients did not get.", total.Drops.Lost())
	metric("ws_oldest_wait_seconds", "gauge", "Longest wait for a full socket.", total.OldestWait.Seconds())
}

// A page for Prometheus without its client library.
func ExampleManager_Stats() {
	m := must(ws.NewManager())
	must(m.CreateRoom("lobby", nil))
	st := m.Stats()
	var page strings.Builder
	writeMetrics(&page, &st)
	fmt.Print(page.String()[:strings.Index(page.String(), "# HELP ws_paused")])
	// Output:
	// # HELP ws_clients Connected clients.
	// # TYPE ws_clients gauge
	// ws_clients 0
	// # HELP ws_rooms Rooms.
	// # TYPE ws_rooms gauge
	// ws_rooms 1
}

// TestGuideCodeIsTested finds each piece of Go in docs/guide.md, but for its indentation, in a
// test of this package.
func TestGuideCodeIsTested(t *testing.T) {
	guide, err := os.ReadFile("docs/guide.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var tests strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		tests.WriteString(withoutIndentation(string(source)))
	}
	pieces := strings.Split(string(guide), "```go\n")[1:]
	require.NotEmpty(t, pieces)
	for _, piece := range pieces {
		code, _, ok := strings.Cut(piece, "```\n")
		require.True(t, ok)
		assert.True(t, strings.Contains(tests.String(), withoutIndentation(code)), "in no test:\n%s", code)
	}
}

func withoutIndentation(code string) string {
	lines := strings.Split(code, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimLeft(line, "\t")
	}
	return strings.Join(lines, "\n")
}
