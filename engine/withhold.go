package engine

// HoldInLoop makes a connection that has just opened wait until Release: no
// message is handed over and nothing is written, not even the answer of the
// handshake. Frames sent meanwhile wait in the queue, as for a peer that does
// not read. The owner calls it within OnOpen.
func (c *Conn) HoldInLoop() {
	s := c.shard
	s.pause(c, pausedByOwner)
	c.set(withheld)
	if !c.is(blocked) { // the last bytes of a TLS handshake may wait for the socket
		s.block(c)
	}
}

// Release ends HoldInLoop, behind everything that the caller has sent. It never
// waits. Safe for concurrent use.
func (c *Conn) Release() { c.shard.Post((*releaseTask)(c)) }

// releaseTask brings Release to the loop.
type releaseTask Conn

func (t *releaseTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if !c.is(withheld) || c.state.Load() == stateClosed {
		return
	}
	c.unset(withheld)
	s.removeBlocked(c)
	s.unblock(c)
	s.markDirty(c)
	s.unpause(c, pausedByOwner)
}
