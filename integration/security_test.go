package integration_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// The rows of the table of memory in docs/security.md: those whose bounds
// TestSecurityTable fills, and those of another time of a connection's life, or
// of a part that a test cannot hold without chance.
var (
	heldRows = []string{
		"connection and client", "unfinished message", "message in its handler", "mailbox",
		"queue", "queue of high priority", "rooms",
	}
	otherRows = []string{
		"message that waits to be inflated", "rest of a read", "request head", "bytes behind the request",
		"TLS ClientHello", "TLS handshake",
	}
)

// securityRow is a row of the table of memory: it begins with the resource and
// its bound in KiB or MiB.
var securityRow = regexp.MustCompile(`(?m)^\| ([A-Za-z][^|]*?) \| (\d+) (KiB|MiB) \|`)

// securityTable returns the bounds of docs/security.md in bytes, by resource.
func securityTable(t *testing.T) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile("../docs/security.md")
	require.NoError(t, err)
	rows := make(map[string]int64)
	for _, m := range securityRow.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseInt(m[2], 10, 64)
		require.NoError(t, err)
		if n <<= 10; m[3] == "MiB" {
			n <<= 10
		}
		rows[m[1]] = n
	}
	return rows
}

// liveHeap is the heap after garbage collection.
func liveHeap() int64 {
	var ms runtime.MemStats
	runtime.GC()
	runtime.GC() // memory in pools goes in the second
	runtime.ReadMemStats(&ms)
	return int64(ms.HeapAlloc)
}

// A client that fills each of its bounds at once makes the server hold no more
// than the table in docs/security.md says, with all settings but two timeouts at their defaults,
// and the server has it back when the client is gone.
func TestSecurityTable(t *testing.T) {
	const clients, rooms = 40, 1024
	table := securityTable(t)
	require.ElementsMatch(t, slices.Concat(heldRows, otherRows), slices.Collect(maps.Keys(table)))
	var bound int64
	for _, name := range heldRows {
		bound += table[name]
	}
	mem := ws.NewSimnet()
	m, err := ws.NewManager(func(c *ws.Config) {
		c.Simnet = mem
		c.MessageTimeout, c.WriteTimeout = 10*harness.Patience, 10*harness.Patience // it takes time to fill all
	})
	require.NoError(t, err)
	release := make(chan struct{})
	m.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { <-release })
	run := make(chan error, 1)
	go func() { run <- m.Run() }() // until Shutdown
	mem.Connect(1, []byte(harness.UpgradeRequest("/ws", "")))
	mem.HangUp(0) // the first client makes the server allocate shared memory
	harness.Eventually(t, func() bool { mem.Wait(); return m.GetClientCount() == 0 && mem.Stats().Upgraded == 1 },
		"the first client stays")
	before := liveHeap()

	first := mem.Connect(clients, []byte(harness.UpgradeRequest("/ws", "")))
	mem.Wait()
	require.Equal(t, clients, m.GetClientCount())
	fillInbound(mem, first, clients)
	for i := range clients {
		mem.Stall(first + i)
	}
	mem.Wait()
	n := 0
	m.RangeClients(func(c *ws.Client) bool {
		fillOutbound(t, c)
		for k := range rooms { // each client's own
			assert.NoError(t, c.JoinRoom(fmt.Sprintf("%0256d", n*rooms+k)))
		}
		n++
		return true
	})
	mem.Wait()
	held := (liveHeap() - before) / clients
	t.Logf("a client holds %d KiB of %d KiB", held>>10, bound>>10)
	assert.LessOrEqual(t, held, bound)
	assert.Greater(t, held, bound/2, "the bounds are filled, or the table allows too much")

	close(release)
	for i := range clients {
		mem.HangUp(first + i)
	}
	harness.Eventually(t, func() bool { mem.Wait(); return m.GetClientCount() == 0 }, "the clients have not gone")
	harness.Eventually(t, func() bool { return liveHeap()-before < bound },
		"the clients have gone and their memory has not")
	require.NoError(t, m.Shutdown(t.Context()))
	require.NoError(t, <-run)
}

// fillInbound makes each client send a message that its handler keeps, fill its
// mailbox up to its mark, and begin a message that it does not finish.
func fillInbound(mem *ws.Simnet, first, clients int) {
	cfg := ws.DefaultConfig()
	large := harness.Frame(gobwas.OpBinary, strings.Repeat("m", int(cfg.MessageSizeLimit)))
	half := harness.Frame(gobwas.OpBinary, strings.Repeat("m", int(cfg.MailboxBytes/4)))
	unfinished := large[:len(large)-1]
	for i := range clients {
		mem.Send(first+i, []byte(large))
	}
	mem.Wait()
	for i := range clients {
		// The fourth reaches the mark and does not go beyond it.
		mem.Send(first+i, []byte(strings.Repeat(half, 4)+unfinished))
	}
	mem.Wait()
}

// fillOutbound sends to a client that does not read until both of its queues are
// full.
func fillOutbound(t *testing.T, c *ws.Client) {
	t.Helper()
	cfg := ws.DefaultConfig()
	for _, lane := range []struct {
		send   func([]byte) error
		frames int
		bytes  int64
	}{
		{c.SendBytes, cfg.MessageQueueSize, cfg.QueueBytes},
		{c.SendBytesHigh, cfg.HighQueueSize, cfg.HighQueueBytes},
	} {
		size := int(lane.bytes)/lane.frames - 8 // with its header, as many as may wait
		var err error
		for n := 0; err == nil && n < 2*lane.frames; n++ {
			err = lane.send(make([]byte, size))
		}
		require.ErrorIs(t, err, ws.ErrChannelFull)
	}
}
