package pool

// Capacities of a ring, in tasks of 16 bytes; powers of two.
const (
	minRing    = 16
	shrinkRing = 1024 // a ring no larger than this keeps its array
)

// ring is a queue of tasks that grows, and shrinks after a burst. Not safe for concurrent use.
type ring struct {
	buf  []Task // its length is zero or a power of two
	head int    // index of the oldest task
	n    int    // tasks held
}

func (r *ring) len() int { return r.n }

func (r *ring) push(t Task) {
	if r.n == len(r.buf) {
		r.resize(max(minRing, 2*r.n))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = t
	r.n++
}

// pop takes the oldest task off. The ring must not be empty.
func (r *ring) pop() Task {
	t := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	if len(r.buf) > shrinkRing && r.n <= len(r.buf)/4 {
		r.resize(len(r.buf) / 2)
	}
	return t
}

func (r *ring) resize(size int) {
	buf := make([]Task, size)
	tail := copy(buf, r.buf[r.head:min(r.head+r.n, len(r.buf))])
	copy(buf[tail:], r.buf[:r.n-tail])
	r.buf, r.head = buf, 0
}
