package engine

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// minBatch is the number of waiting connections from which on one call for
// several is cheaper than a call for each.
const minBatch = 4

// maxEntryFrames bounds the frames of one entry. Like maxEntryBytes, it is the
// point from which on writev for the connection alone is cheaper: gathering
// long queues of many connections spoils the processor's caches.
const maxEntryFrames = 8

// batch writes the queues of many connections in one system call. Each
// connection has at most one entry, so its frames keep their order. The kernel
// reads the entries, headers and frames only within the call. All of them are on
// the heap and in reach of the collector then, which does not move them.
//
// Loop-confined: use only on the event loop that owns the connections.
type batch struct {
	ring    *uring
	entries [maxBatch]batchEntry
	n       int // gathered
}

// batchEntry is the write to one connection.
type batchEntry struct {
	conn  *Conn
	total int
	head  unix.Msghdr
	iov   [maxEntryFrames + 1]unix.Iovec
}

// newBatch returns nil if batched writes are off, or if the kernel lacks or
// forbids io_uring.
func newBatch(cfg *Config) *batch {
	if cfg.BatchedWrites == BatchOff || os.Getenv("WS_BATCHED_WRITES") == "off" {
		return nil
	}
	ring, err := newUring(maxBatch)
	if err != nil {
		cfg.Logger.Debug("ws: no batched writes", slog.Any("error", err))
		return nil
	}
	return &batch{ring: ring}
}

// flush writes to connections of the list: to many in one call, and to those
// with a long queue alone. A panic in a callback harms only its own connection.
func (b *batch) flush(list *dirtyList) {
	defer b.send()
	clock := &list.peek().shard.clock
	for begun := clock.work; !list.empty() && b.n < maxBatch && clock.work-begun < clockStep; {
		c := list.pop()
		if c.is(dirty) { // else it was written meanwhile; it can be listed twice
			c.unset(dirty)
			b.add(c)
		}
	}
}

// add gathers the frames of c.
func (b *batch) add(c *Conn) {
	if !c.mayWrite() {
		return
	}
	e := &b.entries[b.n]
	iov, total := c.gather(e.iov[:0], maxEntryBytes+1)
	if total == 0 {
		return
	}
	if total > maxEntryBytes || len(iov) > maxEntryFrames {
		clear(iov)
		c.flushSome(maxFlushBytes)
		return
	}
	e.conn, e.total = c, total
	b.ring.prepare(b.n, c.fd, iov, &e.head)
	b.n++
}

// send writes the gathered frames, and continues each connection by its result.
// Until then nothing else may write to the connections: the callbacks of a
// result reach no other connection's queue.
func (b *batch) send() {
	n := b.n
	if n == 0 {
		return
	}
	stats := &b.entries[0].conn.shard.stats
	results := b.ring.submit(n)
	if sent := n - notSentIn(results); sent > 0 {
		stats.writes.add(1)
		stats.batched.add(uint64(sent))
	}
	b.n = 0
	for i := range n {
		e := &b.entries[i]
		c, total := e.conn, e.total
		e.conn = nil
		clear(e.iov[:])
		c.continueBatched(total, results[i])
	}
}

// notSentIn counts the entries that the kernel did not take.
func notSentIn(results []int32) (n int) {
	for _, res := range results {
		if res == notSent {
			n++
		}
	}
	return n
}

// holds reports whether c has an entry whose result is not known.
func (b *batch) holds(c *Conn) bool {
	if b != nil {
		for i := range b.entries {
			if b.entries[i].conn == c {
				return true
			}
		}
	}
	return false
}

// continueBatched continues c after its entry of total bytes.
func (c *Conn) continueBatched(total int, res int32) {
	defer c.shard.eng.guard("write")
	switch {
	case res == notSent:
		c.flushSome(maxFlushBytes)
		return
	case res < 0:
		c.wrote(0, total, unix.Errno(-res))
	default:
		c.wrote(int(res), total, nil)
	}
	if c.mayWrite() { // a part of the queue is left, or it was interrupted
		c.shard.markDirty(c)
	}
}

// close releases the ring. The loop has ended.
func (b *batch) close() {
	if b != nil {
		b.ring.close()
	}
}
