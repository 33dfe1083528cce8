package natsbroker_test

import (
	"strconv"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// TestSlowConsumer holds the only receiver of a node while more messages come than it keeps.
func TestSlowConsumer(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	n := newNode(t, "a")
	n.hold = make(chan struct{})
	cfg := natsbroker.Config{Servers: []string{s.ClientURL()}, Receivers: 1, Pending: 16}
	b := connect(t, n, cfg)
	busy, tail, calm := room("busy"), room("tail"), room("calm")
	require.NoError(t, b.Subscribe([]ws.Topic{busy, tail, calm}))
	n.onReceive = func(topic ws.Topic, msg string) {
		if topic == busy {
			n.log = append(n.log, msg)
		}
	}
	other := connect(t, newNode(t, "b"), natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.NoError(t, other.Publish(calm, nil))
	eventually(t, func() bool { return n.held.Load() == 1 }, "the receiver does not wait for the node")
	const count = 1000
	for i := range count {
		require.NoError(t, other.Publish(busy, []byte(strconv.Itoa(i))))
	}
	require.NoError(t, other.Publish(tail, nil), "the last message of all")
	eventually(t, func() bool { return natsbroker.Dropped(b, tail) == 1 }, "the message was not dropped")
	close(n.hold)
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.lost[tail] == 1 && n.lost[busy] > 0
	}, "the loss is not reported")
	require.Equal(t, 1, n.count(calm))
	eventually(t, func() bool { return natsbroker.Waiting(b) == 0 }, "messages stay")

	require.NoError(t, other.Publish(busy, []byte(strconv.Itoa(count))))
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.log[len(n.log)-1] == strconv.Itoa(count)
	}, "the messages do not go on")
	require.NotContains(t, n.lost, calm)
	require.Zero(t, n.lostAll)
	require.Equal(t, 1, n.ups)
}

// TestHolesComeAfterTheirReport runs a node that is slower than the messages. At most one message waits
// and one is under way, so that a report comes at most two messages before its hole.
func TestHolesComeAfterTheirReport(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	n := newNode(t, "a")
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}, Receivers: 1, Pending: 1})
	busy := room("busy")
	require.NoError(t, b.Subscribe([]ws.Topic{busy}))
	n.onReceive = func(_ ws.Topic, msg string) { n.log = append(n.log, msg) }
	other := connect(t, newNode(t, "b"), natsbroker.Config{Servers: []string{s.ClientURL()}})
	holes := 0
	for sent := 0; holes < 100; {
		for range 1000 {
			require.NoError(t, other.Publish(busy, []byte(strconv.Itoa(sent))))
			sent++
		}
		n.read(func() { holes = checkReports(t, n.log) })
	}
}

// checkReports returns the number of holes in the numbers of the messages, and checks that each
// comes after its report.
func checkReports(t *testing.T, log []string) (holes int) {
	last, since := -1, 3 // messages since the last report
	for _, line := range log {
		i, err := strconv.Atoi(line)
		if err != nil {
			since = 0
			continue
		}
		if i != last+1 {
			require.Greater(t, i, last)
			require.LessOrEqual(t, since, 2, "%d after %d without a report", i, last)
			holes++
		}
		last = i
		since++
	}
	return holes
}

// TestDropsWithoutNotice drops messages of a topic without a message that is taken between them:
// nats.go gives a notice of the first only.
func TestDropsWithoutNotice(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	n := newNode(t, "a")
	n.hold = make(chan struct{})
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}, Receivers: 1, Pending: 1})
	busy, tail := room("busy"), room("tail")
	require.NoError(t, b.Subscribe([]ws.Topic{busy, tail}))
	other := connect(t, newNode(t, "b"), natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.NoError(t, other.Publish(busy, nil))
	eventually(t, func() bool { return n.held.Load() == 1 }, "the receiver does not wait for the node")
	reported := func() (count int) {
		n.read(func() { count = n.lost[tail] })
		return count
	}
	for drops := 1; ; drops++ {
		require.NoError(t, other.Publish(busy, nil))
		eventually(t, func() bool { return natsbroker.Waiting(b) == 1 }, "no message waits")
		require.NoError(t, other.Publish(tail, nil))
		eventually(t, func() bool { return natsbroker.Dropped(b, tail) == drops }, "the message was not dropped")
		if reported() > 0 {
			break // and so the last one is not
		}
		n.hold <- struct{}{} // the receiver takes the next message, or reports the loss before it
		eventually(t, func() bool { return natsbroker.Waiting(b) == 0 }, "the receiver does not go on")
	}
	before := reported()
	close(n.hold)
	eventually(t, func() bool { return reported() > before }, "the last drop is not reported")
}
