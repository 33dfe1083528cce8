package engine

import (
	"errors"
	"math"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// traffic processes the bytes that c has received.
func (c *Conn) traffic() {
	s := c.shard
	s.enter()
	defer s.leave()
	defer c.recoverRead()
	c.readInLoop()
}

// readInLoop processes the bytes that gnet has read for c.
func (c *Conn) readInLoop() {
	if c.is(pendingClose) {
		_, _ = c.gc.Discard(-1)
		return
	}
	c.noteLife()
	if c.readClosing() {
		return
	}
	if c.is(awaitsProxy) && !c.is(lingering) && !c.readProxyHeader() {
		return
	}
	c.transport().receive(c)
}

// decode processes b, the bytes behind those of the last call, in place. It
// holds the bytes that a paused connection must not handle yet.
func (c *Conn) decode(b []byte) {
	s := c.shard
	s.stats.bytesIn.add(uint64(len(b)))
	if !c.is(pausedFlags) && !s.holds(c) {
		b = c.decodeUntilPaused(b)
	}
	if len(b) > 0 {
		c.hold(b)
	}
}

// decodeUntilPaused processes the messages in b until one pauses the
// connection. It returns the bytes behind that one.
func (c *Conn) decodeUntilPaused(b []byte) (rest []byte) {
	s := c.shard
	ended := false
	if c.deflate() != nil && s.inflateClock.refuses(len(b)) {
		c.pauseForOthers()
	}
	s.beginReply(c)
	for (len(b) > 0 || s.inflates(c)) && !c.is(lingering|gotClose|pendingClose|pausedFlags) {
		n, m, ok, err := c.nextMessage(b)
		if err != nil {
			c.fail(codec.CloseCodeOf(err), err)
			break
		}
		b = b[n:]
		if ok {
			ended = ended || !m.Op.IsControl()
			c.handle(m)
		}
		if s.inflateClock.over && len(b) > 0 {
			c.pauseForOthers()
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

// nextMessage takes one message from b, inflated.
func (c *Conn) nextMessage(b []byte) (n int, m codec.Message, ok bool, err error) {
	s := c.shard
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
	case !c.takesMessages():
	case m.Compressed:
		s.wireBytes = len(m.Payload)
		m.Payload, ok, err = c.inflate(m)
	case !ok && err == nil:
		err = c.checkUnfinished()
	}
	return n, m, ok, err
}

// handle acts on one message or control frame.
func (c *Conn) handle(m codec.Message) {
	switch m.Op {
	case codec.OpPing:
		if c.end() == nil && c.takesControl() {
			c.pushPong(m.Payload)
		}
	case codec.OpPong:
		if c.takesControl() {
			c.noteRoundTrip(m.Payload)
		}
	case codec.OpClose:
		c.handleClose(m.Payload)
	default:
		if c.takesMessages() {
			c.shard.stats.messagesIn.add(1)
			c.handOver(m)
		}
	}
}

// handOver gives a message to the owner. If the answers do not fit into the
// queue, it pauses the connection until they do, so a peer that does not read
// its answers waits with its requests.
func (c *Conn) handOver(m codec.Message) {
	s := c.shard
	s.reading = c
	c.owner().OnMessage(m.Op, m.Payload)
	s.reading = nil
	if c.is(blocked) && c.exceeded() {
		c.pause(pausedByQueue)
	}
}

// takesControl counts a ping or pong, and closes the connection if there are
// too many.
func (c *Conn) takesControl() bool {
	c.controls++
	if c.controls <= c.shard.eng.controls {
		return true
	}
	if c.end() == nil {
		c.fail(codec.ClosePolicyViolation, errControls)
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
func (c *Conn) recoverRead() {
	s := c.shard
	r := recover()
	if r == nil {
		return
	}
	s.eng.reportPanic("traffic", r)
	s.reading = nil
	c.dropReplies(s.reply.tally)
	s.reply = replyBatch{}
	_, _ = c.gc.Discard(-1)
	s.releaseHeld(c)
	if c.is(opened) {
		c.closeLingering(codec.CloseInternalError, errInternal)
	} else {
		s.closeLater(c, errInternal)
	}
}

var errInternal = errors.New("ws: internal error")
