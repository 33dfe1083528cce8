package engine

const (
	queuedShift     = 40
	queuedBytesMask = 1<<queuedShift - 1
	// blockedBit is set while the connection is blocked, for senders on other
	// goroutines.
	blockedBit = 1 << 63
)

// queuedFrames returns the frames that q counts.
func queuedFrames(q uint64) uint64 { return q &^ blockedBit >> queuedShift }

// blockedNow reports whether the socket is full. Safe for concurrent use.
func (c *Conn) blockedNow() bool { return c.queued[LaneNormal].Load()&blockedBit != 0 }

// bounds are the most that a lane may hold.
type bounds struct {
	frames uint64
	bytes  int64
}

// exceeded reports whether q is beyond b. A lane that is empty takes one
// message of any size.
func (b *bounds) exceeded(q uint64) bool {
	frames := queuedFrames(q)
	return frames > b.frames || (int64(q&queuedBytesMask) > b.bytes && frames > 1)
}

// share is a part of b, at least 1.
func (b *bounds) share(part float64) bounds {
	return bounds{max(1, uint64(part*float64(b.frames))), max(1, int64(part*float64(b.bytes)))}
}

// reserve counts f against the bounds of its lane, if it fits.
func (c *Conn) reserve(f *Frame) bool { return c.reserveBytes(f.lane, f.Len()) }

// reserveBytes is reserve for a frame of n bytes.
func (c *Conn) reserveBytes(lane Lane, n int) bool {
	// Not an addition that is taken back when it went too far: another sender would
	// meanwhile see a full queue that is not.
	for {
		q := c.queued[lane].Load()
		next := q + (1<<queuedShift | uint64(n))
		if c.shard.eng.bounds[lane].exceeded(next) {
			return false
		}
		if c.queued[lane].CompareAndSwap(q, next) {
			return true
		}
	}
}

// reserveGrowth counts n more bytes, or -n less, for a frame that is counted
// already, if it still fits.
func (c *Conn) reserveGrowth(lane Lane, n int) bool {
	for {
		q := c.queued[lane].Load()
		next := q + uint64(n) // wraps around for a negative one
		if n > 0 && c.shard.eng.bounds[lane].exceeded(next) {
			return false
		}
		if c.queued[lane].CompareAndSwap(q, next) {
			return true
		}
	}
}

// forceReserve counts f, whether it fits or not.
func (c *Conn) forceReserve(f *Frame) {
	c.queued[f.lane].Add(1<<queuedShift | uint64(f.Len()))
}

// unreserve takes back frames and bytes that were reserved.
func (c *Conn) unreserve(lane Lane, frames, bytes int) {
	c.queued[lane].Add(-(uint64(frames)<<queuedShift | uint64(bytes)))
}

// above reports whether any lane is at a mark.
func (c *Conn) above(mark *[dataLanes]bounds) bool {
	for lane := range c.queued {
		q := c.queued[lane].Load()
		if queuedFrames(q) >= mark[lane].frames || int64(q&queuedBytesMask) >= mark[lane].bytes {
			return true
		}
	}
	return false
}

// Exceeded reports whether the queue is beyond its bounds, so that no answer fits
// any more; see SendAnswer. Safe for concurrent use.
func (c *Conn) Exceeded() bool { return c.exceeded() }

func (c *Conn) exceeded() bool {
	return c.shard.eng.bounds[LaneNormal].exceeded(c.queued[LaneNormal].Load())
}
