package engine

// A connection retires at its age of Config.MaxLifetime, less a random part of
// Config.MaxLifetimeJitter. The lifetime costs no byte for a connection, because
// its generation gives both the time at which it came (see arrivals) and the
// random part. Its timer fires for its next ping or for the end of its life,
// whichever comes first.

// lifetime returns the longest life of a connection and its random part, in ticks; zeros without
// Config.MaxLifetime.
func (e *Engine) lifetime() (most, jitter uint32) {
	if e.cfg.MaxLifetime == 0 {
		return 0, 0
	}
	most = e.ticks(e.cfg.MaxLifetime)
	return most, min(uint32(min(e.cfg.MaxLifetimeJitter/e.tickTime, 1<<30)), most)
}

// endOfLife returns the tick at which the life of c is over. The multiplication
// spreads generations that follow each other evenly over the jitter.
func (c *Conn) endOfLife(now uint32) uint32 {
	e := c.shard.eng
	part := uint64(c.generation*2654435769) * uint64(e.lifeJitter) >> 32
	return e.arrivals.of(c.generation, now) + e.lifeTicks - uint32(part)
}

// livesForEver reports whether no connection retires because of its age now. A
// drain has a pace of its own, so there is no such end while it lasts.
func (e *Engine) livesForEver() bool { return e.lifeTicks == 0 || e.paced.Load() != nil }

// beforeEnd returns the deadline, or the end of c's life if that comes before it.
func (c *Conn) beforeEnd(deadline uint32) uint32 {
	e := c.shard.eng
	if e.livesForEver() {
		return deadline
	}
	now := e.now.Load()
	if end := c.endOfLife(now); int32(end-now) > 0 && int32(end-deadline) < 0 {
		return end
	}
	return deadline
}

// retireOfAge retires c if its life is over, and reports whether it is.
func (c *Conn) retireOfAge() bool {
	s := c.shard
	now := s.eng.now.Load()
	if s.eng.livesForEver() || int32(c.endOfLife(now)-now) > 0 || !c.mayRetire() {
		return false
	}
	s.stats.retired.add(1)
	c.retire(&s.eng.cfg.Retirement)
	return true
}
