package engine

import (
	"context"
	"net/http"
	"time"

	"github.com/qi-realtime/ws/codec"
)

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
		s.refuseRequest(c, errStopping)
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
	s.unpause(c, pausedEarly)
	if c.state.Load() == stateClosed || c.is(pendingClose) || c.is(lingering) {
		if t.decision.Accepted {
			s.eng.handler.Abandon(c)
		}
		return
	}
	if !s.admitted(c, t.request, &t.decision) {
		return
	}
	if c.tls() != nil {
		s.decode(c, c.tls().request.take())
	} else if c.gc.InboundBuffered() > 0 {
		s.readInLoop(c)
	}
}
