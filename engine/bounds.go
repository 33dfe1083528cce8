package engine

const (
	queuedShift     = 40
	queuedBytesMask = 1<<queuedShift - 1
	// blockedBit is set while the connection is blocked. Senders on other
	// goroutines read it.
	blockedBit = 1 << 63
)

// queuedFrames returns the number of frames in q.
func queuedFrames(q uint64) uint64 { return q &^ blockedBit >> queuedShift }

// blockedNow reports whether the socket is full. Safe for concurrent use.
func (c *Conn) blockedNow() bool { return c.queued[LaneNormal].Load()&blockedBit != 0 }

// bounds are the limits of a lane.
type bounds struct {
	frames uint64
	bytes  int64
}

// exceeded reports whether q is beyond b. An empty lane takes one message of
// any size.
func (b *bounds) exceeded(q uint64) bool {
	frames := queuedFrames(q)
	return frames > b.frames || (int64(q&queuedBytesMask) > b.bytes && frames > 1)
}

// share returns a part of b, at least 1.
func (b *bounds) share(part float64) bounds {
	return bounds{max(1, uint64(part*float64(b.frames))), max(1, int64(part*float64(b.bytes)))}
}

// setBounds sets the bounds of the lanes and their marks.
func (e *Engine) setBounds() {
	cfg := &e.cfg
	e.bounds[LaneNormal] = bounds{uint64(cfg.MessageQueueSize), cfg.QueueBytes}
	e.bounds[LaneHigh] = bounds{uint64(cfg.HighQueueSize), cfg.HighQueueBytes}
	for lane, b := range e.bounds {
		e.highMark[lane], e.lowMark[lane] = b.share(cfg.HighWaterMark), b.share(cfg.LowWaterMark)
		e.storedMark[lane] = bounds{min(storedFrames, e.lowMark[lane].frames), e.lowMark[lane].bytes}
	}
}

// reserve counts f against the bounds of its lane, if it fits.
func (c *Conn) reserve(f *Frame) bool { return c.reserveBytes(f.lane, f.Len()) }

// reserveBytes is reserve for a frame of n bytes.
func (c *Conn) reserveBytes(lane Lane, n int) bool {
	// Not an addition that is undone if it exceeds the bounds: another sender
	// could see a full queue meanwhile that is not full.
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

// reserveGrowth counts n more bytes, or -n fewer, for a frame that is already
// counted, if it still fits.
func (c *Conn) reserveGrowth(lane Lane, n int) bool {
	for {
		q := c.queued[lane].Load()
		next := q + uint64(n) // wraps around for a negative n
		if n > 0 && c.shard.eng.bounds[lane].exceeded(next) {
			return false
		}
		if c.queued[lane].CompareAndSwap(q, next) {
			return true
		}
	}
}

// forceReserve counts f even if it does not fit.
func (c *Conn) forceReserve(f *Frame) {
	c.queued[f.lane].Add(1<<queuedShift | uint64(f.Len()))
}

// unreserve takes back reserved frames and bytes.
func (c *Conn) unreserve(lane Lane, frames, bytes int) {
	c.queued[lane].Add(-(uint64(frames)<<queuedShift | uint64(bytes)))
}

// above reports whether any lane has reached a mark.
func (c *Conn) above(mark *[dataLanes]bounds) bool {
	for lane := range c.queued {
		q := c.queued[lane].Load()
		if queuedFrames(q) >= mark[lane].frames || int64(q&queuedBytesMask) >= mark[lane].bytes {
			return true
		}
	}
	return false
}

// Exceeded reports whether the queue is beyond its bounds, so that no answer
// fits any more; see SendAnswer. Safe for concurrent use.
func (c *Conn) Exceeded() bool { return c.exceeded() }

func (c *Conn) exceeded() bool {
	return c.shard.eng.bounds[LaneNormal].exceeded(c.queued[LaneNormal].Load())
}
