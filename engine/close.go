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

	unopened bool  // the connection was never open
	taken    int64 // bytes read since the closing began; loop-confined
}

// closeState is the part of a Shard that the end of connections uses.
//
// Loop-confined: use only on the event loop that owns the connections.
type closeState struct {
	pendingCloses []*Conn
	halfClosed    int // connections that have left gnet; see keepHalfClosed
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
	s.beginCloseInLoop(c, CloseInfo{Code: t.code, Reason: t.reason})
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
func (s *Shard) handleClose(c *Conn, payload []byte) {
	code, reason, err := codec.ParseClose(payload)
	if err != nil {
		s.fail(c, codec.CloseCodeOf(err), err)
		return
	}
	end := CloseInfo{Code: code, Reason: reason, Remote: true}
	if c.end() != nil {
		s.answerClose(c, end)
		return
	}
	s.endInOrder(c, end)
}

// fail closes a connection whose peer broke the protocol, behind the answers to
// the earlier messages. Later bytes of the peer are read and discarded until
// the peer has read our close frame and closes: an immediate close would reset
// the connection and could lose the frame (RFC 6455 section 7.1.7).
func (s *Shard) fail(c *Conn, code codec.CloseCode, err error) {
	if c.end() == nil {
		s.endInOrder(c, CloseInfo{Code: code, Err: err})
	} else {
		s.closeLingering(c, code, err)
	}
	s.eng.observer.OnInvalid(c, err)
}

// endInOrder acts on the peer's close frame, FIN or violation behind the
// answers to the earlier messages, and after CloseTimeout at the latest.
func (s *Shard) endInOrder(c *Conn, end CloseInfo) {
	ready := c.owner.OnPeerClose()
	if ready && s.rest == nil && s.in.emptyInLoop() {
		s.actOnEnd(c, end)
		return
	}
	s.pause(c, pausedByOwner)
	s.holdEnd(c, &end)
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
	if ready { // the answers to the last messages may be in the inbox
		s.Post((*resumeTask)(c))
	}
}

// actOnEnd answers the peer's close frame or FIN, or closes because of its
// violation.
func (s *Shard) actOnEnd(c *Conn, end CloseInfo) {
	if end.Remote || end.Code == codec.CloseAbnormal {
		s.answerClose(c, end)
	} else {
		s.closeLingering(c, end.Code, end.Err)
	}
}

// answerClose answers the peer's close frame with ours, or its FIN with a FIN.
func (s *Shard) answerClose(c *Conn, end CloseInfo) {
	c.set(gotClose)
	if c.end() == nil {
		s.beginCloseInLoop(c, end)
	}
	if c.out == nil {
		s.sentAll(c)
	}
}

// closeLingering is fail without OnInvalid and without the order.
func (s *Shard) closeLingering(c *Conn, code codec.CloseCode, err error) {
	reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "codec: "), "ws: ")
	s.beginCloseInLoop(c, CloseInfo{Code: code, Reason: reason, Err: err})
	c.set(lingering)
	if c.out == nil { // our close frame is already sent
		s.sentAll(c)
	}
}

// beginCloseInLoop queues the close frame behind all other frames and starts
// the close timeout. Nothing more is queued after it.
func (s *Shard) beginCloseInLoop(c *Conn, end CloseInfo) {
	if c.end() != nil || c.state.Load() == stateClosed {
		return
	}
	c.state.Store(stateClosing)
	c.setEnd(&end)
	s.forgetInflation(c)
	s.unpause(c, pausedFlags) // no more messages are handed over, but the peer's close frame must be read
	s.noteSpace(c)
	s.endReplyOf(c)
	if end.Code != codec.CloseAbnormal {
		s.pushLast(c, codec.AppendClose(nil, end.Code, end.Reason))
	}
	c.owner.OnClosing()
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

// lingerTime is the time that a peer has to read the reason of its close.
const lingerTime = time.Second

// sentAll runs when the last queued byte of c is sent.
func (s *Shard) sentAll(c *Conn) {
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
			s.closeDisconnected(takeFirst(&s.disconnected))
		} else {
			s.closeNow(takeFirst(&s.pendingCloses))
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

func (s *Shard) closeDisconnected(c *Conn) {
	if c.state.Load() == stateClosed {
		return
	}
	s.unpause(c, pausedFlags)
	s.noteSpace(c)
	s.pushLast(c, codec.AppendClose(nil, c.end().Code, c.end().Reason))
	c.owner.OnClosing()
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}

func (s *Shard) closeNow(c *Conn) {
	if c.state.Load() != stateClosed {
		c.transport().closeNotify(c)
		s.driver.close(c)
	}
}

// detach releases everything of a closed connection. It must not touch other
// connections, because it can run within any write or close.
func (s *Shard) detach(c *Conn, err error) {
	s.mustBeInLoop()
	if c.state.Load() == stateClosed {
		return
	}
	lost := c.end() == nil && err != nil && !errors.Is(err, io.EOF)
	if c.end() == nil || !c.is(opened) {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err, unopened: !c.is(opened)})
	}
	c.state.Store(stateClosed) // after the end; see Opened
	s.wheel.cancel(c)
	s.forgetOverdue(c)
	s.forgetUnfinished(c)
	s.endAdmitting(c)
	if c.is(blocked) {
		s.removeBlocked(c)
		s.unblock(c)
		s.driver.disarm(c)
	}
	if c.is(slow) {
		s.stats.slow.add(^uint64(0))
	}
	if c.out != nil {
		s.discard(c, DropClosed)
		s.putQueue(c)
	}
	c.transport().end()
	s.forgetPaused(c)
	c.in.Release()
	if !c.is(uncounted) {
		s.eng.open.Add(-1)
	}
	s.stats.connections.add(^uint64(0))
	if c.is(opened) {
		s.stats.closed.add(1)
		end := *c.end()
		end.taken = 0
		c.owner.OnClose(end)
	}
	if lost {
		s.eng.observer.OnReadError()
	}
}
