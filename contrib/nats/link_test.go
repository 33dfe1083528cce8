package natsbroker_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// fails waits until Publish returns ErrDown.
func fails(t *testing.T, b *natsbroker.Broker) {
	t.Helper()
	all := ws.Topic{Kind: ws.TopicAll}
	eventually(t, func() bool { return errors.Is(b.Publish(all, nil), natsbroker.ErrDown) }, "no ErrDown")
}

func TestServerRestart(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	cfg := natsbroker.Config{Servers: []string{s.ClientURL()}}
	an, bn := newNode(t, "a"), newNode(t, "b")
	a, b := connect(t, an, cfg), connect(t, bn, cfg)
	topics := rooms(5000)
	require.NoError(t, b.Subscribe(topics))
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, func() bool { return !an.isUp() && !bn.isUp() }, "still up")
	fails(t, a)
	late := room("subscribed while the server is down")
	require.ErrorIs(t, b.Subscribe([]ws.Topic{late}), natsbroker.ErrDown)
	require.NoError(t, b.Unsubscribe(topics[:1]))

	newServer(t, o)
	eventually(t, func() bool { return an.isUp() && bn.isUp() }, "not up again")
	topics = append(topics, late)
	for _, topic := range topics {
		require.NoError(t, a.Publish(topic, []byte("x")))
	}
	for _, topic := range topics[1:] {
		eventually(t, func() (told bool) {
			bn.read(func() { told = len(bn.received[topic]) == 1 || bn.lost[topic] > 0 })
			return told
		}, topic.Name)
	}
	require.Zero(t, bn.count(topics[0]), "the topic was removed")
	require.Equal(t, 2, bn.ups)
}

// TestNoMessageOvertakesTheState lets nats.go connect again, and get a message, while the node is still
// busy with the end of the first connection.
func TestNoMessageOvertakesTheState(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	n := newNode(t, "a")
	n.rest = make(chan struct{})
	n.onReceive = func(_ ws.Topic, msg string) { n.log = append(n.log, msg) }
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}})
	s = restart(t, s, o)
	publisher, err := nats.Connect(s.ClientURL(), nats.Timeout(patience))
	require.NoError(t, err)
	defer publisher.Close()
	received := natsbroker.InMsgs(b)
	eventually(t, func() bool {
		return publisher.Publish("ws.all", []byte("x")) == nil && publisher.Flush() == nil && natsbroker.InMsgs(b) > received
	}, "nats.go does not connect again")
	eventually(t, func() bool { return natsbroker.Waiting(b) < int(natsbroker.InMsgs(b)-received) }, "no message is taken")
	close(n.rest)
	eventually(t, func() bool { return n.count(ws.Topic{Kind: ws.TopicAll}) > 0 }, "no message")
	n.read(func() { require.Equal(t, []string{"up", "up", "x"}, n.log[:3]) })
}

func TestNoServerAtTheStart(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	n := newNode(t, "a")
	began := time.Now()
	b := start(t, n, natsbroker.Config{Servers: []string{urlOf(o.Port)}})
	require.Less(t, time.Since(began), patience)
	require.ErrorIs(t, b.Publish(room("r"), nil), natsbroker.ErrDown)
	require.ErrorIs(t, b.Subscribe([]ws.Topic{room("r")}), natsbroker.ErrDown)
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.cause != nil
	}, "no reason")
	newServer(t, o)
	eventually(t, n.isUp, "not up")
	other := connect(t, newNode(t, "b"), natsbroker.Config{Servers: []string{urlOf(o.Port)}})
	require.NoError(t, other.Publish(room("r"), []byte("x")))
	eventually(t, func() bool { return n.count(room("r")) == 1 }, "no message")
}

func TestWrongPassword(t *testing.T) {
	o := natsserver.Options{Port: freePort(t), Username: "u", Password: "right"}
	s := newServer(t, o)
	n := newNode(t, "a")
	start(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}, Options: []nats.Option{nats.UserInfo("u", "wrong")}})
	refused := func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return errors.Is(n.cause, nats.ErrAuthorization)
	}
	eventually(t, refused, "no reason")
	o.Password = "wrong"
	s = restart(t, s, o)
	eventually(t, n.isUp, "not up with the password of the new server")
	o.Password = "right again"
	restart(t, s, o)
	eventually(t, refused, "no reason after the reconnect")
}

// TestErrorThatEndsTheConnection lets the server refuse a message that its first information
// allowed, after which nats.go gives up.
func TestErrorThatEndsTheConnection(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	n := newNode(t, "a")
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.NoError(t, b.Subscribe(rooms(100)))
	less := natsserver.Options{Host: "127.0.0.1", Port: o.Port, MaxPayload: 1000, NoSigs: true, NoLog: true}
	require.NoError(t, s.ReloadOptions(&less))
	_ = b.Publish(room("r"), make([]byte, 2000))
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.ups == 2
	}, "no new connection")
	require.Contains(t, n.unconfirmed, room("r"))
	other := connect(t, newNode(t, "b"), natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.NoError(t, other.Publish(room("room 7"), []byte("x")))
	eventually(t, func() bool { return n.count(room("room 7")) == 1 }, "the topics are not restored")
}

// TestStoppedServer publishes messages to a server that is stopped, continues, is stopped again, and killed.
func TestStoppedServer(t *testing.T) {
	c := processConfig{Port: freePort(t)}
	server := newProcess(t, c)
	n := newNode(t, "a")
	b := connect(t, n, natsbroker.Config{
		Servers: []string{urlOf(c.Port)}, PingInterval: time.Second, Timeout: 3 * time.Second,
	})
	server.signal(syscall.SIGSTOP)
	sent := 0
	for b.Publish(room(fmt.Sprint(sent)), make([]byte, 10_000)) == nil && sent < 3000 {
		sent++
	}
	require.Positive(t, sent)
	eventually(t, func() bool { return !n.isUp() }, "the stopped server is not noticed")
	fails(t, b)
	server.kill()
	newProcess(t, c)
	eventually(t, n.isUp, "not up again")
	n.read(func() {
		for i := range sent {
			require.Contains(t, n.unconfirmed, room(fmt.Sprint(i)), "%d messages were sent", sent)
		}
		require.Equal(t, []string{"up", "unconfirmed", "up"}, n.log[:3])
	})
}

func TestContinuedServer(t *testing.T) {
	c := processConfig{Port: freePort(t)}
	server := newProcess(t, c)
	n := newNode(t, "a")
	connect(t, n, natsbroker.Config{
		Servers: []string{urlOf(c.Port)}, PingInterval: 50 * time.Millisecond, Timeout: time.Second,
	})
	server.signal(syscall.SIGSTOP)
	eventually(t, func() bool { return !n.isUp() }, "the stopped server is not noticed")
	server.signal(syscall.SIGCONT)
	eventually(t, n.isUp, "not up again")
}

// TestConfirmedMessages checks that old messages are not unconfirmed after a break.
func TestConfirmedMessages(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	n := newNode(t, "a")
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.NoError(t, b.Publish(room("old"), nil))
	eventually(t, func() bool { return natsbroker.AllConfirmed(b) }, "not confirmed")
	s.Shutdown()
	s.WaitForShutdown()
	newServer(t, o)
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.ups == 2
	}, "not up again")
	require.Empty(t, n.unconfirmed)
}

// TestShortConnection lets nats.go connect and lose the connection again while the node is still busy
// with the end of the first one. The timeout is too long for a test.
func TestShortConnection(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	n := newNode(t, "a")
	n.rest = make(chan struct{})
	cfg := natsbroker.Config{Servers: []string{s.ClientURL()}, ReconnectWait: time.Millisecond, Timeout: time.Hour}
	b := connect(t, n, cfg)
	s = restart(t, s, o)
	eventually(t, func() bool { return natsbroker.Reconnects(b) == 1 }, "nats.go does not connect again")
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, func() bool { return !natsbroker.Connected(b) }, "nats.go is still connected")
	close(n.rest)
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return errors.Is(n.cause, syscall.ECONNREFUSED)
	}, "the link waits for the server of the short connection")
	newServer(t, o)
	eventually(t, n.isUp, "not up again")
}
