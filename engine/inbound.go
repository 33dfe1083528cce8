package engine

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
)

const (
	// maxEarlyBytes is the number of bytes that a client may send behind its
	// upgrade request before the decision.
	maxEarlyBytes = 64 << 10
	// lingerTime is the time that a peer has to read the reason of its close.
	lingerTime = time.Second
)

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
	if c.tls() != nil {
		s.readTLS(c)
		return
	}
	if c.state.Load() == stateHandshake && !s.handshake(c, c.gc) {
		return // the bytes stay in gnet's buffer
	}
	b, _ := c.gc.Peek(-1)
	s.decode(c, b)
	if c.state.Load() != stateClosed {
		_, _ = c.gc.Discard(-1)
	}
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
	s.eng.handler.OnInvalid(c, err)
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

// sentAll runs when the last queued byte of c is sent.
func (s *Shard) sentAll(c *Conn) {
	switch {
	case c.end() == nil || c.is(pendingClose):
	case c.is(gotClose):
		// The peer reads the end first, even if more of its bytes come before
		// the socket is closed, which resets the connection then.
		s.closeNotify(c)
		s.halfClose(c)
		s.drainSocket(c)
		s.closeLater(c, nil)
	case c.is(lingering):
		s.closeNotify(c)
		s.halfClose(c)
		s.wheel.schedule(c, s.eng.after(min(lingerTime, s.eng.cfg.CloseTimeout)))
	}
}

// handshake looks for a whole upgrade request. It returns true once the
// connection is past the handshake and the following bytes must be decoded.
func (s *Shard) handshake(c *Conn, in unread) bool {
	if c.is(lingering) {
		_, _ = in.Discard(-1)
		return false
	}
	if c.is(admitting) {
		if in.InboundBuffered() > maxEarlyBytes {
			s.pauseEarly(c, in.InboundBuffered())
		}
		return false
	}
	b, _ := in.Peek(-1)
	r, n, err := codec.ParseRequest(b, s.eng.cfg.HeadLimits)
	if err != nil {
		_, _ = in.Discard(-1)
		s.refuseRequest(c, requestError(err))
		return false
	}
	if n == 0 {
		return false
	}
	_, _ = in.Discard(n)
	if c.tls() != nil {
		state := c.tls().conn.ConnectionState()
		r.TLS = &state
	}
	r.RemoteAddr = c.RemoteAddr().String()
	if !s.eng.handler.AdmitOffLoop(r) {
		decision := s.eng.handler.Admit(c, r)
		return s.admitted(c, r, &decision)
	}
	s.admitOffLoop(c, r)
	return false
}

// errStopping refuses an upgrade request while the engine stops.
var errStopping = &codec.RequestError{Status: 503, Reason: "server is stopping"}

var errEarlyBytes = errors.New("ws: too many bytes before the handshake's answer")

// pauseEarly makes a peer wait that has sent too much, n bytes so far, before
// the answer of the handshake.
func (s *Shard) pauseEarly(c *Conn, n int) {
	s.pause(c, pausedEarly)
	if !c.is(unwatched) && int64(n) > maxEarlyBytes+s.eng.cfg.MailboxBytes {
		s.closeLater(c, errEarlyBytes) // it cannot be paused
	}
}

// requestError returns err as the error of a request that could not be parsed.
func requestError(err error) *codec.RequestError {
	if bad, ok := errors.AsType[*codec.RequestError](err); ok {
		return bad
	}
	return &codec.RequestError{Status: 400, Reason: "bad request"}
}

// admitted answers the upgrade request, and returns true if the connection is
// open now.
func (s *Shard) admitted(c *Conn, r *http.Request, decision *Decision) bool {
	if decision.Accepted {
		s.open(c, decision.Response)
		return true
	}
	if decision.Refused != nil {
		s.eng.handler.OnRefused(c, r, decision.Refused)
	}
	s.refuse(c, decision.Response)
	return false
}

// refuseRequest is refuse for a request without a decision of Handler.Admit.
func (s *Shard) refuseRequest(c *Conn, err *codec.RequestError) {
	decision := refusedBy(err)
	s.admitted(c, nil, &decision)
}

// refusedBy returns the decision that refuses a request because of err.
func refusedBy(err *codec.RequestError) Decision {
	return Decision{Response: renderRefusal(err), Refused: err}
}

// renderRefusal renders the response that refuses a request.
func renderRefusal(err *codec.RequestError) []byte {
	return codec.AppendRefusal(nil, err.Status, err.Reason, nil)
}

// refuse answers an upgrade request with an error and closes.
func (s *Shard) refuse(c *Conn, response []byte) {
	if c.tls() != nil && !c.tls().ready() {
		s.closeLater(c, errNoHandshake) // the peer could not read it
		return
	}
	c.setEnd(&CloseInfo{Code: codec.CloseAbnormal})
	c.set(lingering)
	s.unpause(c, pausedFlags)
	s.pushFirst(c, response)
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}

// open starts the message phase. response is the answer of the handshake.
func (s *Shard) open(c *Conn, response []byte) {
	c.state.Store(stateOpen)
	c.set(opened)
	s.noteLife(c)
	s.stats.opened.add(1)
	s.pushFirst(c, response)
	// The first ping comes at a random time within the interval, to spread the
	// pings of many connections that came at once.
	s.wheel.schedule(c, s.eng.after(s.eng.jitter()))
	c.owner.OnOpen()
	if s.eng.draining.Load() {
		s.beginCloseInLoop(c, s.eng.drainEnd)
	}
}

// fire acts on the deadline of c. It returns false when the turn's time is
// over.
func (s *Shard) fire(c *Conn) (more bool) {
	s.expire(c)
	s.clock.work += deliveryWork
	return !s.clock.outOfTime()
}

func (s *Shard) expire(c *Conn) {
	defer s.eng.guard("timer") // the wheel continues with the other connections
	if c.end() == nil && c.is(opened) {
		if !s.releaseEnd(c) {
			s.heartbeat(c)
		}
		return
	}
	// In all cases below the connection stays in the wheel.
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.HeartbeatInterval))
	if c.end() != nil {
		s.closeLater(c, nil)
		return
	}
	s.endAdmitting(c)
	s.refuseRequest(c, &codec.RequestError{Status: 408, Reason: "handshake timeout"})
}
