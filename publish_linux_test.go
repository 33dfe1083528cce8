package ws_test

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// processWrites returns the number of the process's system calls that write, with those
// that wake a loop (man proc_pid_io).
func processWrites(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	require.NoError(t, err)
	_, after, found := bytes.Cut(b, []byte("syscw: "))
	require.True(t, found)
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	require.NoError(t, err)
	return n
}

// A publish wakes only the loops that have members, each with one system call.
func TestPublishWakesLoopsWithMembers(t *testing.T) {
	const loops, members = 8, 3
	s := harness.Start(t, ws.WithLoops(loops), ws.WithAuthenticate(placedByPath))
	var clients []*harness.Client
	used := func() int { return loopsInUse(s.Manager) }
	for key := 0; used() < members; key++ { // one client on each of some loops
		before := used()
		c, sc := s.DialClient(harness.Native, strconv.Itoa(key))
		if used() == before {
			c.Finish(1000)
			harness.Eventually(t, func() bool { return s.GetClientCount() == before }, "a client stays")
			continue
		}
		require.NoError(t, sc.JoinRoom("room"))
		clients = append(clients, c)
	}
	publish := func() (wakeUps, writes int) {
		st, before := s.Stats(), processWrites(t)
		require.NoError(t, s.BroadcastToRoom("room", []byte("to the room"), nil))
		for _, c := range clients {
			c.Expect("to the room")
		}
		return int(s.Stats().Total.WakeUps - st.Total.WakeUps), processWrites(t) - before
	}
	// A loop may still be awake, or another event wakes it, such as a tick of the clock.
	var wakeUps, writes int
	if harness.Holds(func() bool {
		wakeUps, writes = publish()
		return wakeUps == members && writes == 2*members
	}) {
		return
	}
	assert.Equal(t, members, wakeUps)
	assert.Equal(t, 2*members, writes, "a wake-up and a delivery for each loop")
}
