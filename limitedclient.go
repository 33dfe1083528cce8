package ws

import (
	"errors"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
)

// limitedClient is a Client of a manager with a RateLimit, as its connection
// sees it. The limiter is here so that clients without a limit neither hold nor
// ask for one. It must stay within 224 bytes, which a test holds.
type limitedClient struct {
	clientOwner
	limiter limiter // loop-confined
}

var errRateLimited = errors.New("ws: client sends faster than its rate limit")

// OnMessage runs on the client's event loop.
func (l *limitedClient) OnMessage(op codec.Opcode, payload []byte) {
	m := l.manager
	if l.limiter.admit(m.limits, time.Since(m.created), len(payload)+l.conn.CompressedInLoop()) {
		l.clientOwner.OnMessage(op, payload)
		return
	}
	m.rateLimited.Add(1)
	if c := l.client(); l.limiter.exhausted(m.limits) {
		c.CloseWithCode(ClosePolicyViolation, "rate limit exceeded")
		m.reportError(c, errRateLimited)
	} else {
		c.refuse(payload)
	}
}

// refuse answers a message that is over the rate limit, if it has an envelope.
func (c *Client) refuse(payload []byte) {
	if c.manager.raw.Load() != nil {
		return
	}
	var e envelope.Envelope
	_ = envelope.ParseEnvelope(payload, &e) // of an invalid one, too, the request_id is read
	c.answerInvalid(string(e.RequestID), 429, "too many requests")
}
