package engine

import (
	"errors"

	"github.com/qi-realtime/ws/codec"
)

// Two timeouts besides the one of silence (life.go). They use the presence clock,
// too, so the time in which the loop was away does not count:
//
//   - Config.MessageTimeout bounds the time between the first and the last byte of a
//     message. Pings between its fragments do not extend it.
//   - Config.WriteTimeout bounds the time in which a peer takes no byte of the data
//     that waits for it. Such a peer may be alive: it does not answer pings because
//     it does not read them.

var (
	errMessageTimeout = errors.New("ws: message not received in time")
	errWriteTimeout   = errors.New("ws: write timeout")
)

// noteUnfinished records after a read whether a message of c is unfinished.
// ended reports that the read has finished an earlier one.
func (s *Shard) noteUnfinished(c *Conn, ended bool) {
	switch {
	case !c.in.Pending():
		s.forgetUnfinished(c)
	case s.eng.messageTicks > 0 || s.eng.cfg.InboundBudget > 0:
		m, known := s.unfinished[c]
		if known && !ended && s.eng.cfg.InboundBudget == 0 {
			return
		}
		if !known || ended {
			m.since = s.presence.ticks
		}
		if s.unfinished == nil {
			s.unfinished = make(map[*Conn]unfinishedMessage)
		}
		c.set(unfinished)
		s.weighUnfinished(c, &m)
		s.unfinished[c] = m
	}
}

// unfinishedMessage is a message without its end.
type unfinishedMessage struct {
	since   uint32 // on the presence clock
	excused uint32 // ticks that pausedByBudget has added to since, from the last favor on
	bytes   int64  // counted in Engine.inbound; 0 without a budget
}

func (s *Shard) forgetUnfinished(c *Conn) {
	if c.is(unfinished) {
		c.unset(unfinished)
		s.forgetWeight(s.unfinished[c])
		delete(s.unfinished, c)
	}
}

// checkUnfinishedMessages fails the connections whose message takes too long.
// It excuses the time of pauses, and bytes that wait for the loop.
func (s *Shard) checkUnfinishedMessages() {
	now := s.presence.ticks
	passed := now - s.unfinishedChecked
	s.unfinishedChecked = now
	for c, m := range s.unfinished {
		switch {
		case c.end() != nil:
			s.forgetUnfinished(c)
		case c.is(pausedFlags | unwatched):
			before := m.since
			m.since = min(m.since+passed, now)
			if c.is(pausedByBudget) {
				m.excused += m.since - before
			}
			s.unfinished[c] = m
		default:
			s.failLate(c, m)
		}
	}
}

// failLate fails c if its unfinished message m takes too long, and reports
// whether it does.
func (s *Shard) failLate(c *Conn, m unfinishedMessage) bool {
	if s.eng.messageTicks == 0 || s.presence.ticks-m.since < s.eng.messageTicks || s.hasUnread(c) {
		return false
	}
	s.forgetUnfinished(c)
	s.fail(c, codec.ClosePolicyViolation, errMessageTimeout)
	return true
}

// stall is the time in which the peer of a blocked connection has taken no
// byte.
type stall struct {
	since  uint32   // on the presence clock
	looked uint32   // time of the last look at the progress
	base   progress // at the first look, or when the peer was last seen to read
}

// beginStall begins the stall of a connection that becomes blocked.
func (s *Shard) beginStall(c *Conn) {
	c.out.stall = stall{since: s.presence.ticks, looked: s.presence.ticks}
}

// checkStall ends a blocked connection whose peer has taken no byte for
// WriteTimeout. It looks at the peer's progress eight times in that time,
// because a peer that reads slowly does not make the socket writable for long.
func (s *Shard) checkStall(c *Conn) {
	now, limit, st := s.presence.ticks, s.eng.writeTicks, &c.out.stall
	if limit == 0 || now-st.looked < max(1, limit/8) {
		return
	}
	st.looked = now
	p := s.progress(c)
	switch {
	case p.since(st.base, 0):
		st.base, st.since = p, now
	case !st.base.known || p.edge < st.base.edge: // more was sent on a Unix socket
		st.base = p
	}
	if now-st.since >= limit {
		s.closeLater(c, errWriteTimeout)
		s.eng.handler.OnWriteError()
	}
}

// maxClosingBytes bounds the bytes that are read from a peer whose connection
// our side closes. The peer's close frame comes behind everything that it sent
// before it read ours, and a client that sends one message that is too large
// reads our close frame only after the whole message. Beyond the bound the peer
// waits.
const maxClosingBytes = 8 << 20

// readClosing discards the received bytes of an open connection that is
// closing, if nothing needs them, and stops reading beyond maxClosingBytes. It
// returns false if the bytes must be decoded.
func (s *Shard) readClosing(c *Conn) (taken bool) {
	end := c.end()
	if end == nil || end.Remote || !c.is(opened) {
		return false
	}
	n := c.gc.InboundBuffered()
	end.taken += int64(n)
	if end.taken > maxClosingBytes {
		s.unwatch(c)
	} else if !c.is(lingering) {
		return false
	}
	s.stats.bytesIn.add(uint64(n))
	_, _ = c.gc.Discard(-1)
	return true
}
