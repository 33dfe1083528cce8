package engine

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// A connection closes in the steps of this table. A step that has to wait leaves
// a state, or a flag of stateClosing:
//
//	event                           functions                            leaves
//	Close, CloseWithin, Stop        beginCloseInLoop                     stateClosing
//	a full queue under Disconnect   disconnect, closeDisconnected        stateClosing
//	the peer's close frame          handleClose, endInOrder, answerClose gotClose
//	the peer's FIN, answers waiting keepHalfClosed, endInOrder           halfClosed, gotClose
//	the peer's violation            fail, endInOrder, closeLingering     lingering
//	a drain, the end of a lifetime  retire, leave, closeRetired          noticed, retired
//	the queue is sent               sentAll                              FIN; after gotClose pendingClose
//	Abort, failure, CloseTimeout    closeLater                           pendingClose
//	the callback or turn ends       closePending, closeNow               stateClosed, by detach

// The states of a connection, in order.
const (
	stateHandshake uint32 = iota // its upgrade request has yet to come or to be answered
	stateOpen
	stateClosing // a close frame is queued, sent or received; no more messages either way
	stateClosed  // its socket is closed
)

// CloseInfo describes the end of a connection.
type CloseInfo struct {
	// Code and Reason come from the first close frame, the peer's or ours;
	// codec.CloseAbnormal if there was none.
	Code   codec.CloseCode
	Reason string
	// Remote reports that the peer closed first.
	Remote bool
	// Err is the network error that ended the connection, or nil.
	Err error

	retires  bool  // our side ends the connection because it retires
	unopened bool  // the connection was never open
	taken    int64 // bytes read since the closing began; loop-confined
}

// closeState is the part of a Shard that the end of connections uses.
//
// Loop-confined: use only on the event loop that owns the connections.
type closeState struct {
	pendingCloses []*Conn
	halfClosed    int         // connections that have left gnet; see keepHalfClosed
	paced         *shardDrain // nil before it begins
}

// Close begins the close handshake behind everything that is already queued.
// Calls after the first have no effect.
func (c *Conn) Close(code codec.CloseCode, reason string) {
	if !c.state.CompareAndSwap(stateOpen, stateClosing) {
		return
	}
	c.shard.Post(&closeTask{conn: c, code: code, reason: reason})
}

// CloseWithin is Close, and ends the connection after d at the latest, even if
// it is closing already. It has no effect before the connection is open.
func (c *Conn) CloseWithin(code codec.CloseCode, reason string, d time.Duration) {
	if c.state.CompareAndSwap(stateOpen, stateClosing) || c.state.Load() == stateClosing {
		c.shard.Post(&closeTask{conn: c, code: code, reason: reason, within: d})
	}
}

// closeTask begins the close handshake of a connection whose state is already
// closing.
type closeTask struct {
	conn   *Conn
	code   codec.CloseCode
	reason string
	within time.Duration // 0 is Config.CloseTimeout
}

func (t *closeTask) RunInLoop(s *Shard) {
	c := t.conn
	if c.is(retired) && t.within == 0 && c.awaitTransit() {
		return
	}
	c.beginCloseInLoop(CloseInfo{Code: t.code, Reason: t.reason})
	if t.within == 0 || c.state.Load() == stateClosed {
		return
	}
	if end := s.eng.after(t.within); int32(c.deadline-end) > 0 {
		s.wheel.schedule(c, end)
	}
}

// Abort ends the connection at once and resets it: queued frames, and bytes
// that the kernel has not sent, are lost. It has no effect before the
// connection is open.
func (c *Conn) Abort() {
	if c.state.CompareAndSwap(stateOpen, stateClosing) || c.state.Load() == stateClosing {
		c.shard.postUrgent((*abortTask)(c))
	}
}

// abortTask resets a connection whose state is already closing.
type abortTask Conn

func (t *abortTask) RunInLoop(s *Shard) {
	if c := (*Conn)(t); c.state.Load() != stateClosed {
		s.driver.resetOnClose(c)
		s.closeLater(c, errAborted)
	}
}

var errAborted = errors.New("ws: connection aborted")

// handleClose acts on the peer's close frame. It answers with the same code
// behind the queued frames, or ends the close handshake that our side began
// (RFC 6455 section 5.5.1).
func (c *Conn) handleClose(payload []byte) {
	code, reason, err := codec.ParseClose(payload)
	if err != nil {
		c.fail(codec.CloseCodeOf(err), err)
		return
	}
	end := CloseInfo{Code: code, Reason: reason, Remote: true}
	if c.end() != nil {
		c.answerClose(end)
		return
	}
	c.endInOrder(end)
}

// fail closes a connection whose peer broke the protocol, behind the answers to
// the earlier messages. Later bytes of the peer are read and discarded until
// the peer has read our close frame and closes: an immediate close would reset
// the connection and could lose the frame (RFC 6455 section 7.1.7).
func (c *Conn) fail(code codec.CloseCode, err error) {
	if c.end() == nil {
		c.endInOrder(CloseInfo{Code: code, Err: err})
	} else {
		c.closeLingering(code, err)
	}
	c.shard.eng.observer.OnInvalid(c, err)
}

// endInOrder acts on the peer's close frame, FIN or violation behind the
// answers to the earlier messages, and after CloseTimeout at the latest.
func (c *Conn) endInOrder(end CloseInfo) {
	s := c.shard
	ready := c.owner().OnEnding()
	if ready && s.rest == nil && s.in.emptyInLoop() {
		c.actOnEnd(end)
		return
	}
	c.pause(pausedByOwner)
	c.holdEnd(&end)
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
	if ready { // the answers to the last messages may be in the inbox
		s.Post((*resumeTask)(c))
	}
}

// actOnEnd answers the peer's close frame or FIN, or closes because of its
// violation.
func (c *Conn) actOnEnd(end CloseInfo) {
	if end.Remote || end.Code == codec.CloseAbnormal {
		c.answerClose(end)
	} else {
		c.closeLingering(end.Code, end.Err)
	}
}

// answerClose answers the peer's close frame with ours, or its FIN with a FIN.
func (c *Conn) answerClose(end CloseInfo) {
	c.set(gotClose)
	if c.end() == nil {
		c.beginCloseInLoop(end)
	}
	if c.out == nil {
		c.sentAll()
	}
}

// closeLingering is fail without OnInvalid and without the order.
func (c *Conn) closeLingering(code codec.CloseCode, err error) {
	reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "codec: "), "ws: ")
	c.beginCloseInLoop(CloseInfo{Code: code, Reason: reason, Err: err})
	c.set(lingering)
	if c.out == nil { // our close frame is already sent
		c.sentAll()
	}
}

// beginCloseInLoop queues the close frame behind all other frames and starts
// the close timeout. Nothing more is queued after it.
func (c *Conn) beginCloseInLoop(end CloseInfo) {
	s := c.shard
	if c.end() != nil || c.state.Load() == stateClosed {
		return
	}
	c.state.Store(stateClosing)
	c.setEnd(&end)
	if !c.is(retired) {
		s.forgetInflation(c)
		c.unpause(pausedFlags) // no more messages are handed over, but the peer's close frame must be read
	}
	s.noteSpace(c)
	s.endReplyOf(c)
	if end.Code != codec.CloseAbnormal {
		c.pushLast(codec.AppendClose(nil, end.Code, end.Reason))
	}
	c.owner().OnClosing()
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
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
func (c *Conn) readClosing() (taken bool) {
	end := c.end()
	if end == nil || end.Remote || !c.is(opened) {
		return false
	}
	n := c.gc.InboundBuffered()
	end.taken += int64(n)
	if end.taken > maxClosingBytes {
		c.unwatch()
	} else if !c.is(lingering) {
		return false
	}
	c.shard.stats.bytesIn.add(uint64(n))
	_, _ = c.gc.Discard(-1)
	return true
}

// lingerTime is the time that a peer has to read the reason of its close.
const lingerTime = time.Second

// sentAll runs when the last queued byte of c is sent.
func (c *Conn) sentAll() {
	s := c.shard
	switch {
	case c.end() == nil || c.is(pendingClose):
	case c.is(gotClose):
		// The peer reads the end first, even if more of its bytes come before
		// the socket is closed, which resets the connection then.
		c.transport().closeNotify(c)
		s.driver.halfClose(c)
		s.driver.drain(c)
		s.closeLater(c, nil)
	case c.is(lingering):
		c.transport().closeNotify(c)
		s.driver.halfClose(c)
		s.wheel.schedule(c, s.eng.after(min(lingerTime, s.eng.cfg.CloseTimeout)))
	}
}

// closeLater closes c's socket at the end of the running callback or turn. It never
// closes at once, because gnet calls OnClose within the close, and OnClose
// changes lists over which a fan-out iterates.
func (s *Shard) closeLater(c *Conn, err error) {
	s.mustBeInLoop()
	if c.is(pendingClose) {
		return
	}
	c.set(pendingClose)
	if c.end() == nil {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err})
	}
	s.pendingCloses = append(s.pendingCloses, c)
}

// maxPendingCloses is the number of connections that a callback, or a turn whose time is
// over, closes at its end.
const maxPendingCloses = 64

// closePending begins the close handshake of the disconnected connections and runs the
// pending closes. It returns false if the turn's time is over before all are
// done.
func (s *Shard) closePending() (done bool) {
	for n := 0; len(s.disconnected) > 0 || len(s.pendingCloses) > 0; n++ {
		if n >= maxPendingCloses && s.clock.outOfTime() {
			return false
		}
		s.clock.work += writeWork
		if len(s.disconnected) > 0 {
			takeFirst(&s.disconnected).closeDisconnected()
		} else {
			takeFirst(&s.pendingCloses).closeNow()
		}
	}
	return true
}

// takeFirst takes the first of conns. It releases the array when conns becomes
// empty.
func takeFirst(conns *[]*Conn) *Conn {
	c := (*conns)[0]
	(*conns)[0] = nil
	if *conns = (*conns)[1:]; len(*conns) == 0 {
		*conns = nil
	}
	return c
}

func (c *Conn) closeDisconnected() {
	s := c.shard
	if c.state.Load() == stateClosed {
		return
	}
	c.unpause(pausedFlags)
	s.noteSpace(c)
	c.pushLast(codec.AppendClose(nil, c.end().Code, c.end().Reason))
	c.owner().OnClosing()
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}

func (c *Conn) closeNow() {
	if c.state.Load() != stateClosed {
		c.transport().closeNotify(c)
		c.shard.driver.close(c)
	}
}

// detach releases everything of a closed connection. It must not touch other
// connections, because it can run within any write or close.
func (s *Shard) detach(c *Conn, err error) {
	s.mustBeInLoop()
	if c.state.Load() == stateClosed {
		return
	}
	s.work.begin()
	defer s.work.end()
	lost := c.end() == nil && err != nil && !errors.Is(err, io.EOF)
	if c.end() == nil || !c.is(opened) {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err, unopened: !c.is(opened)})
	}
	c.state.Store(stateClosed) // after the end; see Opened
	s.wheel.cancel(c)
	s.forgetOverdue(c)
	s.forgetUnfinished(c)
	s.endAdmitting(c)
	if !c.is(opened) {
		s.endHandshake(c)
	}
	if c.is(blocked) {
		s.removeBlocked(c)
		c.unblock()
		s.driver.disarm(c)
	}
	if c.is(slow) {
		s.stats.slow.add(^uint64(0))
	}
	if c.out != nil {
		c.discard(DropClosed)
		s.putQueue(c)
	}
	c.transport().end()
	s.forgetPaused(c)
	c.in.Release()
	if !c.is(uncounted) {
		s.eng.open.Add(-1)
	}
	s.eng.Uncount(c)
	s.stats.connections.add(^uint64(0))
	if c.is(opened) {
		s.countEnd(c)
		end := *c.end()
		s.stats.closes.of(end.Code).add(1)
		s.stats.closed.add(1) // behind its parts, so that none is missing when it is read
		end.taken = 0
		c.owner().OnClose(end)
	}
	if lost {
		s.eng.observer.OnReadError()
	}
}
