package engine

import (
	"errors"
	"math"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// traffic processes the bytes that c has received.
func (s *Shard) traffic(c *Conn) {
	s.enter()
	defer s.leave()
	defer s.recoverRead(c)
	s.readInLoop(c)
}

// readInLoop processes the bytes that gnet has read for c.
func (s *Shard) readInLoop(c *Conn) {
	if c.is(pendingClose) {
		_, _ = c.gc.Discard(-1)
		return
	}
	s.noteLife(c)
	if s.readClosing(c) {
		return
	}
	c.transport().receive(c)
}

// decode processes b, the bytes behind those of the last call, in place. It
// holds the bytes that a paused connection must not handle yet.
func (s *Shard) decode(c *Conn, b []byte) {
	s.stats.bytesIn.add(uint64(len(b)))
	if !c.is(pausedFlags) && !s.holds(c) {
		b = s.decodeUntilPaused(c, b)
	}
	if len(b) > 0 {
		s.hold(c, b)
	}
}

// decodeUntilPaused processes the messages in b until one pauses the
// connection. It returns the bytes behind that one.
func (s *Shard) decodeUntilPaused(c *Conn, b []byte) (rest []byte) {
	ended := false
	if c.deflate() != nil && s.inflateClock.refuses(len(b)) {
		s.pauseForOthers(c)
	}
	s.beginReply(c)
	for (len(b) > 0 || s.inflates(c)) && !c.is(lingering|gotClose|pendingClose|pausedFlags) {
		n, m, ok, err := s.next(c, b)
		if err != nil {
			s.fail(c, codec.CloseCodeOf(err), err)
			break
		}
		b = b[n:]
		if ok {
			ended = ended || !m.Op.IsControl()
			s.handle(c, m)
		}
		if s.inflateClock.over && len(b) > 0 {
			s.pauseForOthers(c)
		}
	}
	s.inflateClock.endRead()
	c.in.Done()
	if c.in.Pending() || c.is(unfinished) {
		s.noteUnfinished(c, ended)
	}
	s.endReply()
	return b
}

// next takes one message from b, inflated.
func (s *Shard) next(c *Conn, b []byte) (n int, m codec.Message, ok bool, err error) {
	if c.deflate() == nil {
		return c.in.Next(b, s.eng.cfg.MessageSizeLimit)
	}
	if s.inflates(c) {
		m, ok, err = s.takeInflation(c)
		return 0, m, ok, err
	}
	n, m, ok, err = c.in.NextDeflate(b, s.eng.cfg.MessageSizeLimit)
	s.wireBytes = 0
	switch {
	case c.state.Load() != stateOpen:
	case m.Compressed:
		s.wireBytes = len(m.Payload)
		m.Payload, ok, err = s.inflate(c, m)
	case !ok && err == nil:
		err = s.checkUnfinished(c)
	}
	return n, m, ok, err
}

// handle acts on one message or control frame.
func (s *Shard) handle(c *Conn, m codec.Message) {
	switch m.Op {
	case codec.OpPing:
		if c.end() == nil && s.takesControl(c) {
			s.pushPong(c, m.Payload)
		}
	case codec.OpPong:
		s.takesControl(c)
	case codec.OpClose:
		s.handleClose(c, m.Payload)
	default:
		if c.state.Load() == stateOpen {
			s.stats.messagesIn.add(1)
			s.handOver(c, m)
		}
	}
}

// handOver gives a message to the owner. If the answers do not fit into the
// queue, it pauses the connection until they do, so a peer that does not read
// its answers waits with its requests.
func (s *Shard) handOver(c *Conn, m codec.Message) {
	s.reading = c
	c.owner.OnMessage(m.Op, m.Payload)
	s.reading = nil
	if c.is(blocked) && c.exceeded() {
		s.pause(c, pausedByQueue)
	}
}

// takesControl counts a ping or pong, and closes the connection if there are
// too many.
func (s *Shard) takesControl(c *Conn) bool {
	c.controls++
	if c.controls <= s.eng.controls {
		return true
	}
	if c.end() == nil {
		s.fail(c, codec.ClosePolicyViolation, errControls)
	}
	return false
}

var errControls = errors.New("ws: too many pings or pongs")

// minControlsPerTick lets a burst pass that comes after a pause.
const minControlsPerTick = 1000

// controlsPerTick converts a limit for each second to one for each tick.
func controlsPerTick(perSecond int, tick time.Duration) uint16 {
	if perSecond == 0 {
		return math.MaxUint16 - 1
	}
	return uint16(min(max(float64(perSecond)*tick.Seconds(), minControlsPerTick), math.MaxUint16-1))
}

// recoverRead closes a connection if the processing of its bytes panics. It
// must be deferred.
func (s *Shard) recoverRead(c *Conn) {
	r := recover()
	if r == nil {
		return
	}
	s.eng.reportPanic("traffic", r)
	s.reading = nil
	s.dropReplies(c, s.reply.tally)
	s.reply = replyBatch{}
	_, _ = c.gc.Discard(-1)
	s.releaseHeld(c)
	if c.is(opened) {
		s.closeLingering(c, codec.CloseInternalError, errInternal)
	} else {
		s.closeLater(c, errInternal)
	}
}

var errInternal = errors.New("ws: internal error")
