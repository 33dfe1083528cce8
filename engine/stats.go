package engine

import "sync/atomic"

// counter is a count that any goroutine may read. Counters are declared in
// stats.go of the root package.
type counter struct{ v atomic.Uint64 }

// add is for a counter with one writing loop: a plain store is enough for a
// single writer, and cheaper than an atomic addition.
func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }

// raise is for a maximum with one writer.
func (c *counter) raise(n uint64) {
	if n > c.v.Load() {
		c.v.Store(n)
	}
}

// addShared is for a counter with several writers.
func (c *counter) addShared(n uint64) { c.v.Add(n) }

// Load returns the count.
func (c *counter) Load() uint64 { return c.v.Load() }

// Connections returns the number of the shard's sockets. Safe for concurrent
// use.
func (s *Shard) Connections() int { return int(s.stats.connections.Load()) }

// Stats returns a snapshot. Safe for concurrent use.
func (s *Shard) Stats() ShardStats {
	st := s.stats.snapshot()
	st.InboxLen, st.Busy = s.in.ring.len(), s.work.total()
	return st
}
