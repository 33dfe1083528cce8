package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
)

// patience is the longest time that a test waits for one event.
const patience = time.Minute

// startCluster runs the program with three nodes.
func startCluster(t *testing.T) (addr string) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", 3, ready) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	select {
	case addr = <-ready:
	case err := <-ended:
		require.NoError(t, err)
	}
	return addr
}

// tab does the same as a tab of a browser.
type tab struct {
	*client.Client
	node string
	said chan saidMessage
}

func openTab(t *testing.T, addr, name, room string) *tab {
	t.Helper()
	tab := &tab{said: make(chan saidMessage, 1000)}
	var err error
	tab.Client, err = client.New("ws://" + addr + "/ws")
	require.NoError(t, err)
	t.Cleanup(tab.Close)
	r := tab.Room(room)
	r.On("said", func(n client.Notify) {
		var m saidMessage
		if err := json.Unmarshal(n.Data, &m); err != nil {
			t.Error(err)
		}
		tab.said <- m
	})
	require.NoError(t, tab.Connect(t.Context()))
	hello, err := client.Request[helloResponse](t.Context(), tab.Client, "hello", helloRequest{name})
	require.NoError(t, err)
	tab.node = hello.Node
	_, err = r.Join(t.Context())
	require.NoError(t, err)
	return tab
}

func (tab *tab) say(ctx context.Context, room, text string) error {
	_, err := client.Request[struct{}](ctx, tab.Client, "say", sayRequest{room, text})
	return err
}

// expect waits for a message with the text, and skips others.
func (tab *tab) expect(t *testing.T, text string) saidMessage {
	t.Helper()
	for limit := time.After(patience); ; {
		select {
		case m := <-tab.said:
			if m.Text == text {
				return m
			}
		case <-limit:
			require.Fail(t, "no message "+text)
		}
	}
}

func stateOf(t *testing.T, addr string) (s clusterState) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/state")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&s))
	return s
}

func post(t *testing.T, addr, path string) {
	t.Helper()
	resp, err := http.Post("http://"+addr+path, "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

func eventually(t *testing.T, condition func() bool, message string) {
	t.Helper()
	require.Eventually(t, condition, patience, 20*time.Millisecond, message)
}

func TestCluster(t *testing.T) {
	addr := startCluster(t)
	tabs := []*tab{openTab(t, addr, "ann", "lobby"), openTab(t, addr, "bob", "lobby"), openTab(t, addr, "cem", "cellar")}
	nodes := map[string]bool{}
	for _, tab := range tabs {
		nodes[tab.node] = true
	}
	require.Len(t, nodes, 3, "the balancer gives each tab another node")
	eventually(t, func() bool {
		topics := 0
		for _, n := range stateOf(t, addr).Nodes {
			for _, topic := range n.Topics {
				if strings.HasPrefix(topic, "room ") {
					topics++
				}
			}
		}
		return topics == 3
	}, "a subscription is missing")

	// The state has a topic before the server has: the first messages may be too early.
	eventually(t, func() bool {
		require.NoError(t, tabs[0].say(t.Context(), "lobby", "hi"))
		return len(tabs[1].said) > 0
	}, "no message")
	m := tabs[1].expect(t, "hi")
	require.Equal(t, saidMessage{"ann", tabs[0].node, "hi"}, m)
	require.NoError(t, tabs[0].say(t.Context(), "lobby", "end"))
	tabs[1].expect(t, "end")
	for _, n := range stateOf(t, addr).Nodes {
		switch n.Name {
		case tabs[1].node:
			require.Positive(t, n.Received["room lobby"])
			require.Equal(t, []string{"bob"}, n.Rooms["lobby"])
		case tabs[2].node:
			require.Empty(t, n.Received["room lobby"], "a node gets the messages of its own rooms only")
		}
	}
	require.Empty(t, tabs[2].said)
}

func TestBrokerStops(t *testing.T) {
	addr := startCluster(t)
	a, b := openTab(t, addr, "ann", "lobby"), openTab(t, addr, "bob", "lobby")
	post(t, addr, "/broker/stop")
	eventually(t, func() bool {
		var e *client.ServerError
		return errors.As(a.say(t.Context(), "lobby", "too late"), &e) && e.Code == 503
	}, "the sender does not learn of it")
	post(t, addr, "/broker/start")
	eventually(t, func() bool {
		return a.say(t.Context(), "lobby", "again") == nil && len(b.said) > 0
	}, "no message after the restart")
	b.expect(t, "again")
}

func TestNodeStops(t *testing.T) {
	addr := startCluster(t)
	a, b := openTab(t, addr, "ann", "lobby"), openTab(t, addr, "bob", "lobby")
	require.Equal(t, "node 1", a.node)
	post(t, addr, "/nodes/0/stop")
	require.Nil(t, stateOf(t, addr).Nodes[0])
	eventually(t, func() bool {
		return a.say(t.Context(), "lobby", "moved") == nil && len(b.said) > 0
	}, "the client does not move to another node")
	b.expect(t, "moved")
	post(t, addr, "/nodes/0/start")
	require.Equal(t, "node 1", stateOf(t, addr).Nodes[0].Name)
}

func TestPage(t *testing.T) {
	addr := startCluster(t)
	for _, path := range []string{"/", "/cluster.js", "/style.css"} {
		resp, err := http.Get("http://" + addr + path)
		require.NoError(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		require.NoError(t, errors.Join(err, resp.Body.Close()))
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.NotZero(t, b.Len())
	}
}
