// Package history keeps the newest messages of a room in a bounded ring, and the places up to which
// the devices of a user have acknowledged them.
package history

import "time"

// Config bounds a Log. Each bound holds by itself, and the newest message always stays.
type Config struct {
	Size  int           // messages; at least 1
	Bytes int64         // memory of the messages, in bytes; 0 is no limit
	TTL   time.Duration // age of a message; 0 is no limit
}

// Log is a ring of the newest messages of one room. Offsets count the messages from 1 on.
// Not safe for concurrent use.
type Log[M any] struct {
	cfg   Config
	ring  []entry[M] // its length is a power of two, or 0
	head  int        // place of the oldest message
	n     int        // messages kept
	top   uint64     // offset of the newest message; 0 before the first
	bytes int64
}

// entry is a message with its memory and the time at which it came.
type entry[M any] struct {
	message M
	bytes   int64
	at      time.Duration
}

// minRing is the first length of a ring.
const minRing = 4

// NewLog returns an empty log.
func NewLog[M any](cfg Config) Log[M] { return Log[M]{cfg: cfg} }

// Top returns the offset of the newest message, also of one that is no longer kept; 0 before the
// first message.
func (l *Log[M]) Top() uint64 { return l.top }

// Oldest returns the offset of the oldest message that is kept, Top()+1 if none is.
func (l *Log[M]) Oldest() uint64 { return l.top + 1 - uint64(l.n) }

// Len returns the number of messages that are kept.
func (l *Log[M]) Len() int { return l.n }

// Bytes returns the memory of the messages and of the ring.
func (l *Log[M]) Bytes() int64 { return l.bytes + int64(len(l.ring))*entryBytes }

// entryBytes is the memory of an entry beside its message.
const entryBytes = 24

// Append adds a message that takes the given memory, and returns its offset. It drops the messages
// that the bounds exclude.
func (l *Log[M]) Append(message M, bytes int64, now time.Duration) (offset uint64) {
	l.Expire(now)
	for l.n > 0 && (l.n >= l.cfg.Size || l.cfg.Bytes > 0 && l.bytes+bytes > l.cfg.Bytes) {
		l.dropOldest()
	}
	if l.n == len(l.ring) {
		l.grow()
	}
	l.ring[(l.head+l.n)&(len(l.ring)-1)] = entry[M]{message, bytes, now}
	l.n++
	l.bytes += bytes
	l.top++
	return l.top
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
func (l *Log[M]) Trim(offset uint64) {
	if oldest := l.Oldest(); offset >= oldest {
		l.Evict(int(min(offset, l.top) - oldest + 1))
	}
}

// After appends to dst the messages that follow the offset, up to the one at last, and up to the
// capacity of dst. The first is the message at from: after+1, or more if messages are missing.
func (l *Log[M]) After(after, last uint64, dst []M) (_ []M, from uint64) {
	from = max(after+1, l.Oldest())
	for offset := from; offset <= min(last, l.top) && len(dst) < cap(dst); offset++ {
		dst = append(dst, l.at(offset).message)
	}
	return dst, from
}

// Weigh counts the memory of the messages from first to last anew, as far as they are kept: size
// returns the memory of a message, which has grown.
func (l *Log[M]) Weigh(first, last uint64, size func(M) int64) {
	for offset := max(first, l.Oldest()); offset <= min(last, l.top); offset++ {
		e := l.at(offset)
		now := size(e.message)
		l.bytes += now - e.bytes
		e.bytes = now
	}
}

// at returns the entry of a message that is kept.
func (l *Log[M]) at(offset uint64) *entry[M] {
	return &l.ring[(l.head+int(offset-l.Oldest()))&(len(l.ring)-1)]
}

func (l *Log[M]) dropOldest() {
	e := &l.ring[l.head]
	l.bytes -= e.bytes
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
