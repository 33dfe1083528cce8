package engine

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue holds the frames that a connection still has to send. It exists while
// it holds frames or the connection is blocked; an idle connection has none.
//
// Loop-confined: use only on the event loop that owns the connection.
type queue struct {
	current *Frame // partly sent frame; precedes all lanes
	sent    int    // sent bytes of current
	lanes   [numLanes]fifo
	expires time.Duration // no frame in the lanes expires before; 0 if none expires
	cost    int           // memory of the frames and of the sealed bytes
	sealed  int           // TLS ciphertext counted in cost, in bytes
	rank    int32         // position in the shard's heap of blocked connections
	begun   uint32        // tick since which current, or frames that nothing overtakes, wait for a full socket; 0 if none
	marks   [dataLanes]marks
	stall   stall
	low     []Task // of RunWhenLowInLoop, that wait
}

// tally counts frames of a lane, and their bytes, against its bounds.
type tally struct{ frames, bytes int }

func (t *tally) add(f *Frame) {
	if !f.exempt {
		t.frames++
		t.bytes += len(f.data)
	}
}

func (q *queue) push(f *Frame) {
	q.lanes[f.lane].push(f)
	q.cost += f.cost()
	q.noteExpiry(f)
}

func (q *queue) noteExpiry(f *Frame) {
	if f.expires != 0 && (q.expires == 0 || f.expires < q.expires) {
		q.expires = f.expires
	}
}

// counted returns the number of frames of a lane that count against its bounds. q may be nil.
func (q *queue) counted(lane Lane) (n uint64) {
	if q == nil {
		return 0
	}
	if q.current != nil && q.current.lane == lane && !q.current.exempt {
		n++
	}
	for _, f := range q.lanes[laneCommitted].waiting() {
		if f.lane == lane {
			n++
		}
	}
	return n + uint64(q.lanes[lane].len())
}

// replace puts f in the place of the queued frame that it conflates, if there
// is one and fits returns true. It returns the old frame.
func (q *queue) replace(f *Frame, fits func(old *Frame) bool) (old *Frame) {
	l := &q.lanes[f.lane]
	i := l.find(f)
	if i < 0 || !fits(l.frames[i]) {
		return nil
	}
	old, l.frames[i] = l.frames[i], f
	q.cost += f.cost() - old.cost()
	q.noteExpiry(f)
	return old
}

// replaceControl puts f in the place of the queued control frame of the same
// opcode. It reports whether there was one, and returns the growth of the
// queue's memory in bytes.
func (q *queue) replaceControl(f *Frame) (growth int, replaced bool) {
	l := &q.lanes[LaneControl]
	for i, queued := range l.frames[l.head:] {
		if queued.data[0] == f.data[0] {
			l.frames[l.head+i] = f
			growth = f.cost() - queued.cost()
			q.cost += growth
			return growth, true
		}
	}
	return 0, false
}

// begin makes f the partly sent frame, with its number of sent bytes. There is
// none before.
func (q *queue) begin(f *Frame, sent int) {
	q.current, q.sent = f, sent
	q.cost += f.cost()
}

// evict removes the oldest or newest frame of a lane that policies may drop. It
// returns nil if there is none.
func (q *queue) evict(lane Lane, oldest bool) *Frame {
	l := &q.lanes[lane]
	f, number := l.evict(oldest)
	if f == nil {
		return nil
	}
	q.cost -= f.cost()
	if lane < dataLanes {
		if oldest {
			q.marks[lane].movedUp(number)
		} else {
			q.marks[lane].removed(number)
		}
	}
	return f
}

// purge removes the frames that have expired and calls gone for each.
func (q *queue) purge(now time.Duration, gone func(*Frame)) {
	if q.expires == 0 || now < q.expires {
		return
	}
	q.expires = 0
	for i := range q.lanes {
		l := &q.lanes[i]
		number := l.popped - 1
		l.filter(func(f *Frame) bool {
			number++
			if f.expires != 0 && f.expires <= now {
				q.cost -= f.cost()
				if i < dataLanes {
					q.marks[i].removed(number)
					number--
				}
				gone(f)
				return false
			}
			q.noteExpiry(f)
			return true
		})
	}
}

// clear removes all frames except the partly sent one, and calls gone for each
// that counts against the bounds.
func (q *queue) clear(gone func(*Frame)) {
	for i := range q.lanes {
		for q.lanes[i].len() > 0 {
			f := q.lanes[i].pop()
			q.cost -= f.cost()
			if !f.exempt {
				gone(f)
			}
		}
	}
	q.expires = 0
}

func (q *queue) empty() bool {
	return q.current == nil && q.next() == nil
}

// gather appends to iov the bytes to send, in order, up to the capacity of iov
// and about maxBytes. iov refers to the frames: clear it after use.
func (q *queue) gather(iov []unix.Iovec, maxBytes int) (_ []unix.Iovec, total int) {
	if q.current != nil {
		rest := q.current.data[q.sent:]
		iov, total = append(iov, iovec(rest)), len(rest)
	}
	for _, lane := range sendOrder {
		l := &q.lanes[lane]
		for _, f := range l.frames[l.head:] {
			if len(iov) == cap(iov) || total >= maxBytes {
				return iov, total
			}
			iov, total = append(iov, iovec(f.data)), total+len(f.data)
		}
	}
	return iov, total
}

// iovec describes b, which is not empty, to writev.
func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}

// advance removes n sent bytes from the front. It returns the tally of the
// frames that were sent whole.
func (q *queue) advance(n int) (left [dataLanes]tally) {
	for n > 0 {
		if q.current == nil {
			q.current, q.sent = q.next().pop(), 0
		}
		f := q.current
		step := min(n, len(f.data)-q.sent)
		q.sent += step
		n -= step
		if q.sent < len(f.data) {
			return left
		}
		q.cost -= f.cost()
		q.current, q.sent, q.begun = nil, 0, 0
		if f.lane < dataLanes {
			left[f.lane].add(f)
		}
	}
	return left
}

// next returns the lane of the next frame to send, or nil if there is none.
func (q *queue) next() *fifo {
	for _, lane := range sendOrder {
		if q.lanes[lane].len() > 0 {
			return &q.lanes[lane]
		}
	}
	return nil
}

// reset empties the queue for its next owner. It keeps slices of at most keep
// frames.
func (q *queue) reset(keep int) {
	for i := range q.lanes {
		q.lanes[i].reset(keep)
	}
	q.current, q.sent, q.expires, q.cost, q.sealed = nil, 0, 0, 0, 0
	q.begun, q.marks = 0, [dataLanes]marks{}
}

// marks measure the wait of the oldest frame of one lane, without a time for
// each frame. A mark is set at the tail of the lane of a blocked connection and
// holds the tick; the frames in front of it are at least as old. It is gone
// when the frame at its place has left. A frame that conflates another one
// keeps its place, and so its age.
//
// There are two marks, so that the age does not fall to 0 while frames wait
// long: the second is set when the first is old, and replaces it.
//
// Loop-confined: use only on the event loop that owns the connection.
type marks [2]mark

// mark is a place in a lane and the tick at which it was the last one.
type mark struct {
	end   uint32 // number of the frame behind the marked one; see fifo.popped
	since uint32 // tick
}

// in reports whether the marked frame is still in l.
func (m mark) in(l *fifo) bool { return int32(m.end-uint32(l.popped)) > 0 }

// tail marks the newest frame of l, which is not empty.
func tail(l *fifo, now uint32) mark { return mark{uint32(l.popped + l.len()), now} }

// tidy drops the first mark if its frame has left l.
func (ms *marks) tidy(l *fifo) {
	if !ms[0].in(l) {
		ms[0], ms[1] = ms[1], mark{}
	}
}

// note marks the tail of l if no frame of it is marked, or if the only mark is
// older than spacing.
func (ms *marks) note(l *fifo, now, spacing uint32) {
	if l.len() == 0 {
		return
	}
	ms.tidy(l)
	switch {
	case !ms[0].in(l):
		ms[0] = tail(l, now)
	case !ms[1].in(l) && now-ms[0].since >= spacing:
		ms[1] = tail(l, now)
	}
}

// age returns the least number of ticks that the oldest frame of l has waited.
func (ms *marks) age(l *fifo, now uint32) uint32 {
	ms.tidy(l)
	if !ms[0].in(l) {
		return 0
	}
	return now - ms[0].since
}

// removed adjusts the marks after the frame of that number has left from within
// the lane or its tail.
func (ms *marks) removed(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) > 0 {
			ms[i].end--
		}
	}
}

// movedUp adjusts the marks after the frame of that number has left, and the
// frames in front of it have taken the next numbers.
func (ms *marks) movedUp(number int) {
	for i := range ms {
		if int32(ms[i].end-uint32(number)) <= 0 {
			ms[i].end++
		}
	}
}

// noteAges marks the lanes of a blocked connection. Marks of one lane are at
// least spacing ticks apart.
func (q *queue) noteAges(now, spacing uint32) {
	for lane := range q.marks {
		q.marks[lane].note(&q.lanes[lane], now, spacing)
	}
}

// noteBegun records the start of the wait of a partly sent frame, of frames
// that are compressed in order, or of sealed bytes. The connection has just
// become blocked.
func (q *queue) noteBegun(now uint32, sealed bool) {
	if q.begun == 0 && (sealed || q.current != nil || q.lanes[laneCommitted].len() > 0) {
		q.begun = max(now, 1)
	}
}

// age returns the least number of ticks that the oldest data frame has waited
// for the connection's socket.
func (q *queue) age(now uint32) (age uint32) {
	if q.begun != 0 {
		age = now - q.begun
	}
	for lane := range q.marks {
		age = max(age, q.marks[lane].age(&q.lanes[lane], now))
	}
	return age
}
