package engine

import (
	"time"
)

// pace is a token bucket. Each connection takes one token.
type pace struct {
	perSecond float64 // 0 is no limit
	burst     float64
	tokens    float64
	filled    time.Time // time of the last refill
}

func newPace(perSecond float64, burst int) pace {
	return pace{perSecond: perSecond, burst: float64(max(1, burst)), tokens: float64(max(1, burst))}
}

// take takes a token, or returns the time until there is one.
func (p *pace) take(now time.Time) (wait time.Duration) {
	if p.perSecond == 0 {
		return 0
	}
	if !p.filled.IsZero() {
		p.tokens = min(p.burst, p.tokens+now.Sub(p.filled).Seconds()*p.perSecond)
	}
	p.filled = now
	if p.tokens >= 1 {
		p.tokens--
		return 0
	}
	return time.Duration((1-p.tokens)/p.perSecond*float64(time.Second)) + 1
}

// least returns the shortest time between two looks at the tokens: a
// millisecond, so that a high rate does not need a wake-up for each token, but
// at most half of the time in which the bucket fills up and tokens are lost.
func (p *pace) least() time.Duration {
	return min(time.Millisecond, time.Duration(p.burst/p.perSecond/2*float64(time.Second)))
}

// restReason is a reason for which connections wait.
type restReason uint8

const (
	restDescriptors restReason = iota
	restPace
)

// rest counts the waits of connections for one reason.
type rest struct {
	resting bool
	changed time.Time // time of the last change of resting
	times   uint64
	total   time.Duration
}

// set records whether connections wait now. It reports whether an episode
// begins.
func (r *rest) set(resting bool, now time.Time) (begins bool) {
	if resting == r.resting {
		return false
	}
	if r.resting {
		r.total += now.Sub(r.changed)
	} else if r.times == 0 || now.Sub(r.changed) >= episodeGap {
		r.times++
		begins = true
	}
	r.resting, r.changed = resting, now
	return begins
}

// stats returns a snapshot.
func (r *rest) stats(now time.Time) RestStats {
	st := RestStats{Resting: r.resting, Times: r.times, Time: r.total}
	if r.resting {
		st.Time += now.Sub(r.changed)
	}
	return st
}

// RestStats describes the waits of new connections for one reason.
type RestStats struct {
	Resting bool          // connections wait now
	Times   uint64        // episodes of waiting; those less than 10 s apart are one
	Time    time.Duration // total time during which connections waited
}

// AcceptStats describes the acceptance of new connections since the start.
type AcceptStats struct {
	// Descriptors describes the waits of the listeners because the process, or
	// the machine, has no descriptors to spare.
	Descriptors RestStats
	// Pace describes the waits for a permit at the pace of Admission.
	Pace RestStats
	// Upgrades is the number of HandleUpgrade calls that wait for their permit
	// now.
	Upgrades int
	// Addresses is the number of addresses with connections that count for the limits of
	// their address. Uncounted is the number of connections since the start that came in
	// uncounted, because there was no place for their address.
	Addresses int
	Uncounted uint64
}

// AcceptStats returns a snapshot. Safe for concurrent use.
func (e *Engine) AcceptStats() AcceptStats {
	g := e.accept
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	st := AcceptStats{
		Descriptors: g.rests[restDescriptors].stats(now), Pace: g.rests[restPace].stats(now),
		Upgrades: g.queues[permitUpgrade].Len(),
	}
	if e.addresses != nil {
		st.Addresses, st.Uncounted = e.addresses.Addresses(), e.addresses.Uncounted()
	}
	return st
}
