package pool

// Capacities of a ring, in tasks of 16 bytes. They are powers of two.
const (
	minRing    = 16
	shrinkRing = 1024 // a ring no larger than this keeps its array
)

// ring is a queue of tasks. It grows in a burst and shrinks afterwards. Not safe for
// concurrent use.
type ring struct {
	buf    []Task // its length is zero or a power of two
	head   int    // index of the oldest task
	n      int    // tasks in the queue
	popped uint64 // tasks since the start
}

func (r *ring) len() int { return r.n }

// push adds t and returns its ticket, which is never 0.
func (r *ring) push(t Task) (ticket uint64) {
	if r.n == len(r.buf) {
		r.resize(max(minRing, 2*r.n))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = t
	r.n++
	return r.popped + uint64(r.n)
}

// withdraw puts nil in the place of a task, and reports whether the task still waited.
func (r *ring) withdraw(ticket uint64) bool {
	place := ticket - r.popped - 1 // wraps around for a popped task
	if place >= uint64(r.n) {
		return false
	}
	t := &r.buf[(r.head+int(place))&(len(r.buf)-1)]
	waited := *t != nil
	*t = nil
	return waited
}

// pop takes the oldest task off the ring, which must not be empty. It returns nil for a
// withdrawn task.
func (r *ring) pop() Task {
	t := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	r.popped++
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
