package engine

import "slices"

// Config.InboundBudget bounds the memory for inbound bytes that wait here, of
// all connections: unfinished messages, undecoded bytes of paused connections,
// and the mailboxes, which the owner adds. Beyond the budget a connection is
// paused at the end of a read if its unfinished message takes at least the
// average; beyond nine eighths of it, if the message takes more than
// spareBytes. So the largest messages wait first, and a peer with small
// messages never waits.
//
// Only finished messages free memory, so a few of the waiting connections are
// favored: they are read regardless of the budget, until their message is
// finished or its time is over. A favored connection that brings little within
// budgetSlice gives way to the next one. Then the time for which it was paused
// before counts against its MessageTimeout, because the pause did not keep it
// from sending: the kernel holds the bytes meanwhile. So a shard exceeds its
// part by at most maxFavored messages, beside one read of each connection.

const (
	// budgetSlice is the number of ticks in which a favored connection must
	// bring budgetStep bytes.
	budgetSlice = 4
	budgetStep  = 64 << 10
	// spareBytes is the size of an unfinished message that is never paused by
	// the budget.
	spareBytes = 16 << 10
	// maxFavored is the number of connections of a shard that are favored at
	// once.
	maxFavored = 4
)

// AddInbound adds n bytes that wait for the owner, or removes -n if n is
// negative. Safe for concurrent use.
func (e *Engine) AddInbound(n int64) { e.inbound.Add(n) }

// Inbound returns the bytes that count against the InboundBudget: those of
// AddInbound, of unfinished messages, and undecoded ones of paused connections.
// Safe for concurrent use.
func (e *Engine) Inbound() int64 {
	n := e.inbound.Load()
	for _, s := range e.shards {
		n += int64(s.stats.heldBytes.Load())
	}
	return n
}

// InboundExceeded reports whether Inbound exceeds the InboundBudget. Safe for
// concurrent use.
func (e *Engine) InboundExceeded() bool {
	return e.cfg.InboundBudget > 0 && e.Inbound() > e.cfg.InboundBudget
}

// favoredConn is a connection that is read although the budget is exceeded.
type favoredConn struct {
	conn  *Conn
	since uint32 // on the presence clock
	bytes int64  // of its message at that time
}

// weighUnfinished counts the unfinished message of c anew, and pauses c if the
// budget is exceeded.
func (s *Shard) weighUnfinished(c *Conn, m *unfinishedMessage) {
	e := s.eng
	if e.cfg.InboundBudget == 0 {
		return
	}
	if m.bytes == 0 {
		e.holders.Add(1)
	}
	held := int64(max(c.in.Held(), 1))
	e.inbound.Add(held - m.bytes)
	m.bytes = held
	total, budget := e.Inbound(), e.cfg.InboundBudget
	if total <= budget || held <= spareBytes || c.is(favored) {
		return
	}
	if held*e.holders.Load() >= total || total > budget+budget/8 {
		s.pauseByBudget(c)
	}
}

// forgetWeight removes the message from the budget.
func (s *Shard) forgetWeight(m unfinishedMessage) {
	if m.bytes > 0 {
		s.eng.inbound.Add(-m.bytes)
		s.eng.holders.Add(-1)
	}
}

func (s *Shard) pauseByBudget(c *Conn) {
	s.pause(c, pausedByBudget)
	s.budgetLine = append(s.budgetLine, c)
}

// giveWay pauses a connection that was favored and has brought little. The time
// for which it was paused before counts then.
func (s *Shard) giveWay(c *Conn) {
	m := s.unfinished[c]
	m.since -= m.excused
	m.excused = 0
	s.unfinished[c] = m
	if !s.failLate(c, m) {
		s.pauseByBudget(c)
	}
}

// rotateBudget favors the connections that wait longest, in place of those that
// have finished or given way. It resumes all once an eighth of the budget is
// free.
func (s *Shard) rotateBudget() {
	if len(s.budgetLine) == 0 && len(s.favored) == 0 {
		return
	}
	budget, now := s.eng.cfg.InboundBudget, s.presence.ticks
	over := s.eng.Inbound() > budget-budget/8
	kept := s.favored[:0]
	for _, f := range s.favored {
		switch {
		case over && f.conn.is(unfinished) &&
			(now-f.since < budgetSlice || s.unfinished[f.conn].bytes-f.bytes >= budgetStep):
			kept = append(kept, f)
		default:
			f.conn.unset(favored)
			if over && f.conn.is(unfinished) && f.conn.end() == nil {
				s.giveWay(f.conn)
			}
		}
	}
	clear(s.favored[len(kept):])
	s.favored = kept
	s.budgetLine = slices.DeleteFunc(s.budgetLine, func(c *Conn) bool { return !c.is(pausedByBudget) })
	for len(s.budgetLine) > 0 && (!over || len(s.favored) < maxFavored) {
		c := s.budgetLine[0]
		s.budgetLine[0] = nil
		s.budgetLine = s.budgetLine[1:]
		if over {
			c.set(favored)
			s.favored = append(s.favored, favoredConn{c, now, s.unfinished[c].bytes})
		}
		s.unpause(c, pausedByBudget)
	}
	if len(s.budgetLine) == 0 {
		s.budgetLine = nil
	}
	s.stats.budgetPaused.v.Store(uint64(len(s.budgetLine)))
}
