package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue holds the frames that a connection still has to send. It exists only
// while there are some: an idle connection has none.
//
// Loop-confined: use only on the event loop that owns the connection.
type queue struct {
	current *Frame // frame half sent; goes on before any lane
	sent    int    // bytes of current that are sent
	lanes   [numLanes]fifo
}

// fifo is a slice with a moving head.
type fifo struct {
	frames []*Frame
	head   int
}

// maxPooledFrames bounds the capacity of a fifo that goes back to the free
// list, so that one long backlog does not stay for ever.
const maxPooledFrames = 128

func (f *fifo) len() int { return len(f.frames) - f.head }

func (f *fifo) push(fr *Frame) {
	if f.head > 32 && f.head > len(f.frames)/2 {
		n := copy(f.frames, f.frames[f.head:])
		clear(f.frames[n:])
		f.frames, f.head = f.frames[:n], 0
	}
	f.frames = append(f.frames, fr)
}

func (f *fifo) pop() *Frame {
	fr := f.frames[f.head]
	f.frames[f.head] = nil
	f.head++
	if f.head == len(f.frames) {
		f.frames, f.head = f.frames[:0], 0
	}
	return fr
}

func (q *queue) push(fr *Frame, lane Lane) { q.lanes[lane].push(fr) }

func (q *queue) empty() bool {
	return q.current == nil && q.lanes[LaneControl].len() == 0 &&
		q.lanes[LaneHigh].len() == 0 && q.lanes[LaneNormal].len() == 0
}

// gather appends to iov the bytes to send, in order, up to the capacity of iov
// and about maxBytes. iov refers to the frames: clear it after use.
func (q *queue) gather(iov []unix.Iovec, maxBytes int) (_ []unix.Iovec, total int) {
	if q.current != nil {
		rest := q.current.data[q.sent:]
		iov, total = append(iov, iovec(rest)), len(rest)
	}
	for i := range q.lanes {
		l := &q.lanes[i]
		for _, fr := range l.frames[l.head:] {
			if len(iov) == cap(iov) || total >= maxBytes {
				return iov, total
			}
			iov, total = append(iov, iovec(fr.data)), total+len(fr.data)
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

// advance removes n sent bytes from the front. It returns how many frames that
// count against the queue's bounds left the queue, and their bytes.
func (q *queue) advance(n int) (frames, bytes int) {
	for n > 0 {
		if q.current == nil {
			q.current, q.sent = q.next(), 0
		}
		step := min(n, len(q.current.data)-q.sent)
		q.sent += step
		n -= step
		if q.sent < len(q.current.data) {
			return frames, bytes
		}
		if !q.current.exempt {
			frames++
			bytes += len(q.current.data)
		}
		q.current, q.sent = nil, 0
	}
	return frames, bytes
}

// next pops the frame that goes out next. The queue is not empty.
func (q *queue) next() *Frame {
	for i := range q.lanes {
		if q.lanes[i].len() > 0 {
			return q.lanes[i].pop()
		}
	}
	panic("engine: advance beyond the queue")
}

// pending counts what is left and counts against the bounds.
func (q *queue) pending() (frames, bytes int) {
	count := func(fr *Frame) {
		if !fr.exempt {
			frames++
			bytes += len(fr.data)
		}
	}
	if q.current != nil {
		count(q.current)
	}
	for _, l := range q.lanes {
		for _, fr := range l.frames[l.head:] {
			count(fr)
		}
	}
	return frames, bytes
}

// reset empties the queue and keeps small slices for its next owner.
func (q *queue) reset() {
	for i := range q.lanes {
		l := &q.lanes[i]
		clear(l.frames[l.head:])
		l.frames, l.head = l.frames[:0], 0
		if cap(l.frames) > maxPooledFrames {
			l.frames = nil
		}
	}
	q.current, q.sent = nil, 0
}
