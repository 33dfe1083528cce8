package cluster

import "time"

// clock estimates the times at which another node has sent its messages: never too early, and too late by
// the time on the way of its fastest message of late. A machine whose clock has stood still, because it
// was suspended, has too early ones for two periods. Not safe for concurrent use.
type clock struct {
	// The smallest differences of the time at which a message came and its Stamp.At, modulo 2^32:
	// of this period, and of the one before.
	this, last uint32
	began      time.Time // of this period; zero before the first message
}

// clockPeriod bounds the effect of clocks that do not run at the same speed: 100 ppm are 3 ms in two
// periods.
const clockPeriod = 16 * time.Second

// before notes a message that comes now, and returns the latest time at which the event was that is
// Stamp.Before earlier. epoch is the zero of the own clock.
func (c *clock) before(epoch, now time.Time, st Stamp) time.Time {
	own := uint32(now.Sub(epoch).Microseconds())
	way := own - st.At
	switch age := now.Sub(c.began); {
	case age >= 2*clockPeriod:
		c.this, c.last, c.began = way, way, now
	case age >= clockPeriod:
		c.this, c.last, c.began = way, c.this, now
	case int32(way-c.this) < 0:
		c.this = way
	}
	least := c.this
	if int32(c.last-least) < 0 {
		least = c.last
	}
	late := int32(way - least)
	return now.Add(-time.Duration(late)*time.Microsecond - time.Duration(st.Before)*time.Microsecond)
}
