package engine

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// maxEarlyBytes is the number of bytes that a client may send behind its
// upgrade request before the decision.
const maxEarlyBytes = 64 << 10

// handshake looks for a whole upgrade request. It returns true once the
// connection is past the handshake and the following bytes must be decoded.
func (c *Conn) handshake(in unread) bool {
	s := c.shard
	if c.is(lingering) {
		_, _ = in.Discard(-1)
		return false
	}
	if c.is(admitting) {
		if in.InboundBuffered() > maxEarlyBytes {
			c.pauseEarly(in.InboundBuffered())
		}
		return false
	}
	b, _ := in.Peek(-1)
	r, n, err := s.requests.Parse(b, s.eng.cfg.headLimits())
	if err != nil {
		_, _ = in.Discard(-1)
		c.refuseRequest(requestError(err))
		return false
	}
	if n == 0 {
		return false
	}
	_, _ = in.Discard(n)
	c.transport().describe(r)
	if !c.takeForwarded(r.Header) {
		return false
	}
	refused, offLoop := s.eng.handler.Screen(r, c.is(turnedAway))
	switch {
	case refused.Response != nil:
		return c.admitted(r, &refused)
	case !offLoop:
		decision := s.eng.handler.Admit(c, r)
		return c.admitted(r, &decision)
	}
	s.requests = new(codec.RequestParser) // r belongs to the worker
	r.RemoteAddr = c.RemoteAddr().String()
	s.admitOffLoop(c, r)
	return false
}

var errEarlyBytes = errors.New("ws: too many bytes before the handshake's answer")

// pauseEarly makes a peer wait that has sent too much, n bytes so far, before
// the answer of the handshake.
func (c *Conn) pauseEarly(n int) {
	s := c.shard
	c.pause(pausedEarly)
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

// admitOffLoop lets a worker decide on r, because user code takes part. The
// worker's context ends with the connection, with the handshake's timeout,
// which began when the connection came, and when the engine stops.
func (s *Shard) admitOffLoop(c *Conn, r *http.Request) {
	left := time.Duration(int32(c.deadline-s.eng.now.Load())) * s.eng.tickTime
	if left <= 0 { // the loop was away while the request waited in the kernel; see absence
		left = s.eng.cfg.HandshakeTimeout
		s.wheel.schedule(c, s.eng.after(left))
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	if s.admitting == nil {
		s.admitting = make(map[*Conn]context.CancelFunc)
	}
	s.admitting[c] = cancel
	c.set(admitting)
	if !s.eng.handler.Go(ctx, func() { s.eng.admit(ctx, c, r) }) {
		s.endAdmitting(c)
		c.refuseRequest(errStopping)
	}
}

// endAdmitting ends the context of a decision on c's request that is in
// progress.
func (s *Shard) endAdmitting(c *Conn) {
	if c.is(admitting) {
		c.unset(admitting)
		s.admitting[c]()
		delete(s.admitting, c)
	}
}

// admit runs Handler.Admit on a worker.
func (e *Engine) admit(ctx context.Context, c *Conn, r *http.Request) {
	t := &admitTask{conn: c, request: r, decision: refusedBy(errAdmitPanicked)}
	defer func() { c.shard.postUrgent(t) }()
	defer e.guard("admit")
	t.decision = e.handler.Admit(c, r.WithContext(ctx))
}

// admitTask brings the decision on an upgrade request back to the loop.
type admitTask struct {
	conn     *Conn
	request  *http.Request
	decision Decision
}

// errAdmitPanicked refuses a request after a panic of Admit.
var errAdmitPanicked = &codec.RequestError{Status: 500, Reason: "internal error"}

func (t *admitTask) RunInLoop(s *Shard) {
	c := t.conn
	s.endAdmitting(c)
	gone := c.state.Load() == stateClosed || c.is(pendingClose|lingering)
	if !gone && t.decision.Accepted && c.move(&t.decision) {
		return
	}
	c.unpause(pausedEarly)
	if gone {
		if t.decision.Accepted {
			s.eng.handler.Abandon(c)
		}
		return
	}
	if !c.admitted(t.request, &t.decision) {
		return
	}
	c.transport().proceed(c)
}

// admitted answers the upgrade request, and returns true if the connection is
// open now.
func (c *Conn) admitted(r *http.Request, decision *Decision) bool {
	if decision.Accepted {
		c.open(decision.Response, c.shard.endHandshake(c))
		return true
	}
	if decision.Refused != nil {
		c.shard.eng.observer.OnRefused(c, r, decision.Refused)
	}
	c.refuse(decision.Response)
	return false
}

// open starts the message phase. response is the answer of the handshake, which began at the
// given time.
func (c *Conn) open(response []byte, began time.Time) {
	s := c.shard
	c.state.Store(stateOpen)
	c.set(opened)
	c.noteLife()
	s.stats.opened.add(1)
	s.noteHandshake(began)
	c.pushFirst(response)
	// The first ping comes at a random time within the interval, to spread the
	// pings of many connections that came at once.
	s.wheel.schedule(c, c.beforeEnd(s.eng.after(s.eng.jitter())))
	c.owner().OnOpen()
	if s.eng.draining.Load() {
		c.beginCloseInLoop(s.eng.drainEnd)
	}
}

// refuseRequest is refuse for a request without a decision of Handler.Admit.
func (c *Conn) refuseRequest(err *codec.RequestError) {
	decision := refusedBy(err)
	c.admitted(nil, &decision)
}

// refusedBy returns the decision that refuses a request because of err.
func refusedBy(err *codec.RequestError) Decision {
	return Decision{Response: renderRefusal(err), Refused: err}
}

// errTooMany refuses a connection for which no descriptor is left.
var errTooMany = &codec.RequestError{Status: 503, Reason: "too many connections"}

// renderRefusal renders the response that refuses a request.
func renderRefusal(err *codec.RequestError) []byte {
	return codec.AppendRefusal(nil, err.Status, err.Reason, retryHeader(err))
}

// refuse answers an upgrade request with an error and closes.
func (c *Conn) refuse(response []byte) {
	s := c.shard
	if !c.transport().readable() {
		s.closeLater(c, errNoHandshake)
		return
	}
	c.setEnd(&CloseInfo{Code: codec.CloseAbnormal})
	c.set(lingering)
	c.unpause(pausedFlags)
	c.pushFirst(response)
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}
