package ws

import (
	"errors"
	"math"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
)

// RateLimit bounds the traffic of one client: data messages and the bytes of
// their payloads, each by a token bucket. A compressed message counts with its
// compressed bytes and its inflated bytes. Control frames do not count. The
// zero value is no limit.
//
// A message is accepted if both buckets have the tokens for it. A full bucket accepts one
// message of any size: a message larger than the bucket leaves it in debt, and nothing more
// is accepted until the debt is paid. A refused message costs no tokens and is not handled,
// in any handler mode: the client reads an error with code 429 and the message's request_id,
// at once and so perhaps before the answers to earlier messages. With Manager.HandleRaw
// there is no answer. Stats counts the refused messages.
type RateLimit struct {
	// Messages and Bytes are the numbers that are accepted in a second, on average; 0 is
	// no limit. Fractions are allowed.
	Messages, Bytes float64
	// MessageBurst and ByteBurst are the sizes of the buckets, the numbers that are
	// accepted at once. 0 is the amount of one second, but 1 message at least. A burst
	// without its rate has no effect.
	MessageBurst int
	ByteBurst    int64
	// Tolerance is the number of messages that may be refused at once: one more closes
	// the client with 1008, and its waiting messages are not handled. The count of refused
	// messages falls as the buckets fill, by one in the time in which the limit accepts one
	// message of the size of the last refused one, and to 0 when both buckets are full. So
	// a client that is a little over its limit for long loses the excess and stays; one
	// that sends at more than twice its limit is closed. 0 is 10; more than 16,777,215 is
	// 16,777,215.
	Tolerance int
}

const (
	// defaultTolerance stands for a Tolerance of 0.
	defaultTolerance = 10
	// maxTolerance is the largest count in limiter.refused to which 1 can be added exactly.
	maxTolerance = 1<<24 - 1
)

// validate returns an error that names the field that is out of range.
func (r *RateLimit) validate() error {
	return firstError(
		validRate("RateLimit.Messages", r.Messages),
		validRate("RateLimit.Bytes", r.Bytes),
		atLeast("RateLimit.MessageBurst", r.MessageBurst, 0),
		atLeast("RateLimit.ByteBurst", r.ByteBurst, 0),
		atLeast("RateLimit.Tolerance", r.Tolerance, 0),
	)
}

func validRate(field string, rate float64) error {
	return invalidIf(!(rate >= 0) || math.IsInf(rate, 1), field, "must be 0 or a positive, finite number")
}

// limits is a RateLimit with defaults in place of zeros. Immutable after New.
type limits struct {
	messages, bytes bucket
	tolerance       int
}

// newLimits returns nil if r is no limit.
func newLimits(r RateLimit) *limits {
	if r.Messages == 0 && r.Bytes == 0 {
		return nil
	}
	l := &limits{
		messages:  bucket{r.Messages, float64(r.MessageBurst)},
		bytes:     bucket{r.Bytes, float64(r.ByteBurst)},
		tolerance: min(r.Tolerance, maxTolerance),
	}
	if r.MessageBurst == 0 {
		l.messages.size = max(1, r.Messages)
	}
	if r.ByteBurst == 0 {
		l.bytes.size = r.Bytes
	}
	if r.Tolerance == 0 {
		l.tolerance = defaultTolerance
	}
	return l
}

// admits returns the number of messages of n bytes that are accepted in a second, on average.
func (l *limits) admits(n int) float64 {
	rate := math.Inf(1)
	if l.messages.rate > 0 {
		rate = l.messages.rate
	}
	if l.bytes.rate > 0 {
		rate = min(rate, l.bytes.rate/float64(max(1, n)))
	}
	return rate
}

// bucket describes a token bucket. Each client's limiter holds the missing tokens: 0 is a full
// bucket, more than size is debt. Immutable after New.
type bucket struct {
	rate float64 // tokens for each second; 0 is no limit
	size float64
}

// refill returns the missing tokens after elapsed.
func (b bucket) refill(missing float64, elapsed time.Duration) float64 {
	return max(0, missing-b.rate*float64(elapsed)/float64(time.Second))
}

// has reports whether the bucket has n tokens, or is full.
func (b bucket) has(missing, n float64) bool {
	return b.rate == 0 || missing == 0 || missing+n <= b.size
}

// take returns the missing tokens after n more are taken.
func (b bucket) take(missing, n float64) float64 {
	if b.rate == 0 {
		return 0
	}
	return missing + n
}

// limiter is the state of one client's buckets. The zero value has full buckets. Not safe for
// concurrent use.
type limiter struct {
	messages, bytes float64       // missing in the buckets at the time last
	last            time.Duration // time of the last accepted message
	refused         float32       // messages that are refused and not forgiven; see RateLimit.Tolerance
	refusedAt       uint32        // time of the last refused message, in milliseconds that wrap around
}

// admit decides on a message of n bytes at the time now, on any clock that all calls of the
// limiter share. A clock that goes back adds no tokens, and none twice.
func (l *limiter) admit(lim *limits, now time.Duration, n int) bool {
	now = max(now, l.last)
	messages := lim.messages.refill(l.messages, now-l.last)
	bytes := lim.bytes.refill(l.bytes, now-l.last)
	if messages == 0 && bytes == 0 {
		l.refused = 0
	}
	if !lim.messages.has(messages, 1) || !lim.bytes.has(bytes, float64(n)) {
		l.refuse(lim, now, n)
		return false
	}
	l.messages = lim.messages.take(messages, 1)
	l.bytes = lim.bytes.take(bytes, float64(n))
	l.last = now
	return true
}

// refuse counts a message of n bytes that is refused at now.
func (l *limiter) refuse(lim *limits, now time.Duration, n int) {
	at := uint32(now.Milliseconds())
	if passed := int32(at - l.refusedAt); passed > 0 {
		forgiven := lim.admits(n) * float64(passed) / 1000
		l.refused = float32(max(0, float64(l.refused)-forgiven))
		l.refusedAt = at
	}
	l.refused++
}

// exhausted reports whether more messages were refused than are tolerated.
func (l *limiter) exhausted(lim *limits) bool { return l.refused > float32(lim.tolerance) }

// limitedClient is a Client of a manager with a RateLimit, as its connection calls it. The
// limiter is here so that clients without a limit neither hold it nor check for it. It must
// stay within 208 bytes, which a test holds. All clients of the manager are of this type.
type limitedClient struct {
	clientOwner
	limiter limiter // loop-confined
}

var errRateLimited = errors.New("ws: client sends faster than its rate limit")

// OnMessage handles or refuses a message. It runs on the client's event loop.
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
	var e envelope.Request
	_ = envelope.Parse(payload, &e) // it reads the request_id of an invalid envelope, too
	c.answerInvalid(string(e.RequestID), 429, "too many requests")
}
