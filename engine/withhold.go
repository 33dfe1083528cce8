package engine

// HoldInLoop makes a connection that has just opened wait: no message is handed over
// and nothing is written, not even the handshake's answer, until Release. What is sent
// meanwhile waits in the queue, which counts as that of a peer that does not read. The
// owner calls it within OnOpen.
func (c *Conn) HoldInLoop() {
	s := c.shard
	s.pause(c, pausedByOwner)
	c.set(withheld)
	if !c.is(blocked) { // the last of a TLS handshake may wait for the socket
		s.block(c)
	}
}

// Release takes HoldInLoop back, behind all that the caller has sent. It never waits.
// Safe for concurrent use.
func (c *Conn) Release() { c.shard.Post((*releaseTask)(c)) }

// releaseTask carries Release to the loop.
type releaseTask Conn

func (t *releaseTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if !c.is(withheld) || c.state.Load() == stateClosed {
		return
	}
	c.unset(withheld)
	s.catchUp(c)
	s.unblock(c)
	s.markDirty(c)
	s.unpause(c, pausedByOwner)
}
