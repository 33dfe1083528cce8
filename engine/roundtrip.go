package engine

import (
	"encoding/binary"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// A ping carries the time at which it was queued, in 4 bytes. The pong repeats it (RFC 6455
// section 5.5.3), so a round trip is measured without state for each connection. A longer
// payload would need a larger pingProgress.

// pingShare is the time for which the pings of a loop share a frame: the error of a round trip.
const pingShare = 100 * time.Microsecond

// pingState is the frame of the latest pings.
//
// Loop-confined: use only on the event loop that owns the connections.
type pingState struct {
	ping   *Frame        // nil before the first ping
	pinged time.Duration // its time, on the engine's clock
}

// pingFrame returns a ping with the present time.
func (s *Shard) pingFrame() *Frame {
	if now := s.eng.elapsed(); s.ping == nil || now-s.pinged >= pingShare {
		var stamp [4]byte
		binary.BigEndian.PutUint32(stamp[:], pingStamp(now))
		s.ping, s.pinged = newControlFrame(codec.OpPing, stamp[:]), now
	}
	return s.ping
}

// pingStamp returns a time as pings carry it: in microseconds, without the bits beyond 71 minutes.
func pingStamp(t time.Duration) uint32 { return uint32(t / time.Microsecond) }

// noteRoundTrip reports the round trip that ends with a pong of that payload: one for each
// ping, because a peer may send any pong. It ignores a pong that answers no ping of the last
// HeartbeatTimeout.
func (c *Conn) noteRoundTrip(payload []byte) {
	if len(payload) != 4 || !c.is(awaitsPong) {
		return
	}
	e := c.shard.eng
	passed := pingStamp(e.elapsed()) - binary.BigEndian.Uint32(payload)
	if d := time.Duration(passed) * time.Microsecond; d <= e.cfg.HeartbeatTimeout {
		c.unset(awaitsPong)
		c.shard.stats.roundTrip.Observe(d, 1)
		e.observer.OnRoundTrip(c, d)
	}
}
