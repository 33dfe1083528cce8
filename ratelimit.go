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
// compressed bytes and those that it inflates to. Control frames do not count. The
// zero value is no limit.
//
// A message is admitted if both buckets have the tokens for it. A bucket that is
// full admits one message of any size: one that is larger than the bucket leaves
// it in debt, and nothing more is admitted until that is paid. A message that is
// refused costs no tokens and is not handled, whatever the handler mode: the
// client reads an error with code 429 and the message's request_id, at once and
// so perhaps before the answers to earlier messages. With Manager.HandleRaw there
// is no answer. Stats counts the refused messages.
type RateLimit struct {
	// Messages and Bytes are how many of them are admitted in a second, on
	// average; 0 is no limit. Fractions are allowed.
	Messages, Bytes float64
	// MessageBurst and ByteBurst are the sizes of the buckets: how many may
	// come at once. 0 is the amount of one second, but 1 message at least. A
	// burst without its rate has no effect.
	MessageBurst int
	ByteBurst    int64
	// Tolerance is how many messages may be refused at once: at one more the client is
	// closed with 1008, and its waiting messages are not handled. The count of
	// refused messages falls as the buckets fill, by one in the time in which the limit
	// admits one message of the size of the last that was refused, and to 0 when both
	// buckets are full. So a client that is a little over its limit for long loses what
	// is over, and stays; one that sends at more than twice its limit is closed. 0 is
	// 10; more than 16,777,215 is that.
	Tolerance int
}

const (
	// defaultTolerance stands for a Tolerance of 0.
	defaultTolerance = 10
	// maxTolerance is up to where limiter.refused counts by one.
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

// limits is a RateLimit with defaults in place of zeros. Immutable after
// New.
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

// admits returns how many messages of n bytes are admitted in a second, on average.
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

// bucket describes a token bucket. What is missing in it is the client's: 0 is
// full, more than size is debt. Immutable after New.
type bucket struct {
	rate float64 // tokens for each second; 0 is no limit
	size float64
}

// refill returns the missing tokens after some time.
func (b bucket) refill(missing float64, elapsed time.Duration) float64 {
	return max(0, missing-b.rate*float64(elapsed)/float64(time.Second))
}

// has reports whether the bucket has n tokens, or is full.
func (b bucket) has(missing, n float64) bool {
	return b.rate == 0 || missing == 0 || missing+n <= b.size
}

// take returns the missing tokens after n more were taken.
func (b bucket) take(missing, n float64) float64 {
	if b.rate == 0 {
		return 0
	}
	return missing + n
}

// limiter counts the use that one client has made of its limits. The zero value has full
// buckets. Not safe for concurrent use.
type limiter struct {
	messages, bytes float64       // missing in the buckets at last
	last            time.Duration // when a message was last admitted
	refused         float32       // messages beyond those that were forgiven; see RateLimit.Tolerance
	refusedAt       uint32        // when a message was last refused, in milliseconds that wrap around
}

// admit decides on a message of n bytes that comes at now, a time on any clock
// that the limiter's calls share. A clock that goes back adds no tokens, and
// none twice.
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

// exhausted reports whether more was refused than is tolerated.
func (l *limiter) exhausted(lim *limits) bool { return l.refused > float32(lim.tolerance) }

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
	var e envelope.Request
	_ = envelope.Parse(payload, &e) // of an invalid one, too, the request_id is read
	c.answerInvalid(string(e.RequestID), 429, "too many requests")
}
