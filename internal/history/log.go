// Package history keeps the newest messages of a room in a bounded ring, and the places up to which
// the devices of a user have acknowledged them.
package history

import (
	"sort"
	"time"
)

// Config bounds a Log. Each bound holds by itself, and the newest message always stays.
type Config struct {
	Size  int           // messages; at least 1
	Bytes int64         // memory of the messages, in bytes; 0 is no limit
	TTL   time.Duration // age of a message; 0 is no limit
}

// Log is a ring of the newest messages of one room. The offsets of the messages grow. They may have
// holes: no message has an offset between those of two neighbors. Not safe for concurrent use.
type Log[M any] struct {
	cfg   Config
	ring  []entry[M] // its length is a power of two, or 0
	head  int        // place of the oldest message
	n     int        // messages kept
	top   uint64     // offset of the newest message, kept or not; 0 before the first
	base  uint64     // messages up to this offset are not kept
	bytes int64
}

// entry is a message with its memory and the time at which it came.
type entry[M any] struct {
	Item[M]
	bytes int64
	at    time.Duration
}

// Item is a message of a Log with its offset.
type Item[M any] struct {
	Offset  uint64
	Message M
}

// minRing is the first length of a ring.
const minRing = 4

// NewLog returns an empty log.
func NewLog[M any](cfg Config) Log[M] { return Log[M]{cfg: cfg} }

// Top returns the offset of the newest message, also of one that is no longer kept; 0 before the
// first message.
func (l *Log[M]) Top() uint64 { return l.top }

// Base returns the offset up to which messages are not kept: Top() if none is kept. No message has
// an offset between Base and the oldest message that is kept.
func (l *Log[M]) Base() uint64 { return l.base }

// Len returns the number of messages that are kept.
func (l *Log[M]) Len() int { return l.n }

// Bytes returns the memory of the messages and of the ring.
func (l *Log[M]) Bytes() int64 { return l.bytes + int64(len(l.ring))*entryBytes }

// entryBytes is the memory of an entry beside its message.
const entryBytes = 32

// AppendAt adds a message that takes the given memory and came at that time. The offset is greater
// than Top. AppendAt drops the messages that the bounds exclude.
func (l *Log[M]) AppendAt(offset uint64, message M, bytes int64, at time.Duration) {
	l.Expire(at)
	for l.n > 0 && (l.n >= l.cfg.Size || l.cfg.Bytes > 0 && l.bytes+bytes > l.cfg.Bytes) {
		l.dropOldest()
	}
	if l.n == len(l.ring) {
		l.grow()
	}
	l.ring[(l.head+l.n)&(len(l.ring)-1)] = entry[M]{Item[M]{offset, message}, bytes, at}
	l.n++
	l.bytes += bytes
	l.top = offset
}

// Skip notes that messages up to the offset are lost, and so drops all that are kept. It has no
// effect on a Log whose Top is not below the offset.
func (l *Log[M]) Skip(offset uint64) {
	if offset > l.top {
		l.Evict(l.n)
		l.top, l.base = offset, offset
	}
}

// Expire drops the messages that have reached the TTL.
func (l *Log[M]) Expire(now time.Duration) {
	if l.cfg.TTL == 0 {
		return
	}
	for l.n > 0 && now-l.ring[l.head].at >= l.cfg.TTL {
		l.dropOldest()
	}
	l.shrink()
}

// Evict drops the n oldest messages, all if there are fewer, and returns their number.
func (l *Log[M]) Evict(n int) (evicted int) {
	for evicted < n && l.n > 0 {
		l.dropOldest()
		evicted++
	}
	l.shrink()
	return evicted
}

// Trim drops the messages up to the offset.
func (l *Log[M]) Trim(offset uint64) { l.Evict(l.upTo(offset)) }

// Count returns the number of messages that are kept and follow the offset.
func (l *Log[M]) Count(after uint64) int { return l.n - l.upTo(after) }

// Before returns the offset of the message before the newest n ones: Base if no more are kept, Top
// for none.
func (l *Log[M]) Before(n int) uint64 {
	switch {
	case n <= 0:
		return l.top
	case n >= l.n:
		return l.base
	}
	return l.at(l.n - n - 1).Offset
}

// After appends to dst the messages that follow the offset, up to the one at last, and up to the
// capacity of dst. base is Base: messages that follow the offset are missing if it is below base.
func (l *Log[M]) After(after, last uint64, dst []Item[M]) (_ []Item[M], base uint64) {
	for i := l.upTo(after); i < l.n && len(dst) < cap(dst); i++ {
		e := l.at(i)
		if e.Offset > last {
			break
		}
		dst = append(dst, e.Item)
	}
	return dst, l.base
}

// Weigh counts the memory of the messages from first to last anew, as far as they are kept: size
// returns the memory of a message, which has grown.
func (l *Log[M]) Weigh(first, last uint64, size func(M) int64) {
	for i := l.upTo(max(first, 1) - 1); i < l.n; i++ {
		e := l.at(i)
		if e.Offset > last {
			return
		}
		now := size(e.Message)
		l.bytes += now - e.bytes
		e.bytes = now
	}
}

// at returns the entry of the message at that place, which counts from the oldest one, at 0.
func (l *Log[M]) at(i int) *entry[M] { return &l.ring[(l.head+i)&(len(l.ring)-1)] }

// upTo returns the number of messages that are kept and have at most that offset. It searches
// between two bounds, which are equal where the offsets have no holes.
func (l *Log[M]) upTo(offset uint64) int {
	switch {
	case offset >= l.top:
		return l.n
	case l.n == 0 || offset < l.at(0).Offset:
		return 0
	}
	least := l.n - int(min(uint64(l.n), l.top-offset))
	most := int(min(uint64(l.n), offset-l.at(0).Offset+1))
	return least + sort.Search(most-least, func(i int) bool { return l.at(least+i).Offset > offset })
}

func (l *Log[M]) dropOldest() {
	e := &l.ring[l.head]
	l.bytes -= e.bytes
	l.base = e.Offset
	*e = entry[M]{}
	l.head = (l.head + 1) & (len(l.ring) - 1)
	l.n--
}

func (l *Log[M]) grow() { l.resize(max(minRing, 2*len(l.ring))) }

// shrink halves a ring that is three quarters empty.
func (l *Log[M]) shrink() {
	switch {
	case l.n == 0:
		l.ring, l.head = nil, 0
	case len(l.ring) > minRing && l.n <= len(l.ring)/4:
		l.resize(len(l.ring) / 2)
	}
}

func (l *Log[M]) resize(size int) {
	ring := make([]entry[M], size)
	for i := range l.n {
		ring[i] = l.ring[(l.head+i)&(len(l.ring)-1)]
	}
	l.ring, l.head = ring, 0
}
