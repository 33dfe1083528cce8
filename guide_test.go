package ws_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
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
	last := ""
	for f, value := range st.Figures() {
		if name := f.Name; name != last {
			kind := "gauge"
			if f.Counter {
				kind = "counter"
			}
			fmt.Fprintf(w, "# HELP ws_%[1]s %[2]s\n# TYPE ws_%[1]s %[3]s\n", name, f.Help, kind)
			last = name
		}
		fmt.Fprintf(w, "ws_%s{loop=%q,reason=%q} %v\n", f.Name, strconv.Itoa(f.Loop), f.Reason, value)
	}
}

// A page for Prometheus without its client library.
func ExampleManager_Stats() {
	m := must(ws.NewManager())
	must(m.CreateRoom("lobby", nil))
	st := m.Stats()
	var page strings.Builder
	writeMetrics(&page, &st)
	fmt.Print(page.String()[:strings.Index(page.String(), "# HELP ws_handlers")])
	// Output:
	// # HELP ws_clients connected clients
	// # TYPE ws_clients gauge
	// ws_clients{loop="-1",reason=""} 0
	// # HELP ws_rooms rooms, with and without members
	// # TYPE ws_rooms gauge
	// ws_rooms{loop="-1",reason=""} 1
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
