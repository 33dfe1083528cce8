package engine_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// A client that writes as fast as it can to a paused connection costs one read
// of memory and no CPU time: the loop reads nothing, because its epoll waits
// only for errors, and the client's writes wait.
func TestPausedConnectionCostsNothing(t *testing.T) {
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onMessage = func(p *peer, _ codec.Opcode, _ []byte) { p.conn.PauseInLoop() }
	})
	c := s.dial()
	c.send("this one pauses")
	shard := s.Shards()[0]
	s.eventually(func() bool { return shard.Stats().Paused == 1 }, "not paused")
	onLoop(shard, func(*engine.Shard) {}) // the callback that pauses is over
	p := s.peer(0)
	before, cpu := shard.Stats(), processTime(t)
	written := floodFor(t, c, 300*time.Millisecond)
	after := shard.Stats()
	t.Logf("%d bytes went into socket buffers; CPU time of the process, most of it the client's: %v",
		written, processTime(t)-cpu)
	events, err := p.conn.WatchedEvents()
	require.NoError(t, err)
	assert.EqualValues(t, unix.EPOLLERR|unix.EPOLLHUP, events, "the kernel adds these itself")
	assert.LessOrEqual(t, after.BytesIn-before.BytesIn, uint64(64<<10), "one read may have been on its way")
	assert.LessOrEqual(t, after.HeldBytes, int64(64<<10))
	assert.EqualValues(t, 1, after.PausedTotal)

	floodFor(t, c, 300*time.Millisecond)
	again := shard.Stats()
	assert.Equal(t, after.BytesIn, again.BytesIn, "nothing more is read")
	assert.Equal(t, after.HeldBytes, again.HeldBytes)
	assert.Equal(t, after.Tasks, again.Tasks)
	assert.False(t, p.conn.Closed(), "the client waits and is not closed")

	onLoop(shard, func(*engine.Shard) {}) // the loop is alive
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	p.conn.Resume()
	s.eventually(func() bool { return shard.Stats().BytesIn > again.BytesIn }, "nothing is read after the pause")
}

// floodFor writes for the given time, and returns the number of bytes that were
// taken. It fails if they are more than any socket buffer.
func floodFor(t *testing.T, c *client, d time.Duration) (written int) {
	t.Helper()
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(d)))
	chunk := make([]byte, 64<<10)
	for written < 256<<20 {
		n, err := c.Write(chunk)
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return written
		}
		require.NoError(t, err)
	}
	require.Fail(t, "the client does not wait")
	return written
}

// processTime returns the CPU time of this process.
func processTime(t *testing.T) time.Duration {
	var ru unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &ru))
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
