package engine

// fifo is one lane of a queue: a slice with a moving head, and an index by
// conflation key once a search would be expensive.
//
// Loop-confined: use only on the event loop that owns the connection.
type fifo struct {
	frames []*Frame
	head   int
	keyed  int               // frames with a key
	popped int               // frames that have left at the head; the others have the next numbers
	index  map[scopedKey]int // the newest frame of each key, by number; nil while the lane is short
}

// scopedKey is a conflation key with its scope, because two rooms may use the
// same key.
type scopedKey struct {
	scope *Drops
	key   string
}

func (f *Frame) scopedKey() scopedKey { return scopedKey{f.scope, f.key} }

const (
	// maxScan is the length up to which a fifo is searched without an index.
	maxScan = 32
)

func (l *fifo) len() int { return len(l.frames) - l.head }

// waiting returns the frames, oldest first.
func (l *fifo) waiting() []*Frame { return l.frames[l.head:] }

func (l *fifo) push(f *Frame) {
	if l.head > 32 && l.head > len(l.frames)/2 {
		l.compact()
	}
	l.frames = append(l.frames, f)
	if f.key != "" {
		l.keyed++
		if l.index != nil {
			l.index[f.scopedKey()] = l.popped + l.len() - 1
		}
	}
}

// compact moves the frames to the front of the slice.
func (l *fifo) compact() {
	n := copy(l.frames, l.frames[l.head:])
	clear(l.frames[n:])
	l.frames, l.head = l.frames[:n], 0
}

func (l *fifo) pop() *Frame {
	f := l.frames[l.head]
	l.frames[l.head] = nil
	l.forget(f, l.popped)
	l.head++
	l.popped++
	if l.head == len(l.frames) {
		l.frames, l.head = l.frames[:0], 0
	}
	return f
}

// evict removes the oldest or newest frame that policies may drop, and returns
// it with its number, or nil.
func (l *fifo) evict(oldest bool) (f *Frame, number int) {
	i := l.droppable(oldest)
	if i < 0 {
		return nil, 0
	}
	f, number = l.frames[i], l.popped+i-l.head
	l.forget(f, number)
	// The frames that policies keep move up. They have no conflation key, so
	// the index does not change.
	if oldest {
		copy(l.frames[l.head+1:i+1], l.frames[l.head:i])
		l.frames[l.head] = nil
		l.head++
		l.popped++
	} else {
		copy(l.frames[i:], l.frames[i+1:])
		l.frames[len(l.frames)-1] = nil
		l.frames = l.frames[:len(l.frames)-1]
	}
	if l.head == len(l.frames) {
		l.frames, l.head = l.frames[:0], 0
	}
	return f, number
}

// droppable returns the position of the oldest or newest frame that policies
// may drop, or -1.
func (l *fifo) droppable(oldest bool) int {
	for n := range l.len() {
		i := l.head + n
		if !oldest {
			i = len(l.frames) - 1 - n
		}
		if l.frames[i].keep == keepNone {
			return i
		}
	}
	return -1
}

// forget removes f, which has that number, from the index.
func (l *fifo) forget(f *Frame, number int) {
	if f.key == "" {
		return
	}
	l.keyed--
	if l.index == nil {
		return
	}
	if l.index[f.scopedKey()] == number {
		delete(l.index, f.scopedKey())
	}
	if l.keyed == 0 {
		l.index = nil
	}
}

// find returns the position in frames of the newest frame that f conflates, or
// -1.
func (l *fifo) find(f *Frame) int {
	if l.keyed == 0 {
		return -1
	}
	if l.index == nil {
		if l.len() <= maxScan {
			return l.scan(f)
		}
		l.buildIndex()
	}
	if number, ok := l.index[f.scopedKey()]; ok {
		return l.head + number - l.popped
	}
	return -1
}

func (l *fifo) scan(f *Frame) int {
	for i := len(l.frames) - 1; i >= l.head; i-- {
		if g := l.frames[i]; g.key == f.key && g.scope == f.scope {
			return i
		}
	}
	return -1
}

func (l *fifo) buildIndex() {
	l.index = make(map[scopedKey]int, l.keyed)
	for i, f := range l.frames[l.head:] {
		if f.key != "" {
			l.index[f.scopedKey()] = l.popped + i
		}
	}
}

// filter keeps the frames for which keep returns true.
func (l *fifo) filter(keep func(*Frame) bool) {
	kept := l.frames[:l.head]
	for _, f := range l.frames[l.head:] {
		if keep(f) {
			kept = append(kept, f)
		} else if f.key != "" {
			l.keyed--
		}
	}
	clear(l.frames[len(kept):])
	l.frames, l.index = kept, nil
	if l.len() == 0 {
		l.frames, l.head = l.frames[:0], 0
	}
}

// reset empties the fifo. It keeps the slice if its capacity is at most keep
// frames.
func (l *fifo) reset(keep int) {
	clear(l.frames[l.head:])
	frames := l.frames[:0]
	if cap(frames) > keep {
		frames = nil
	}
	*l = fifo{frames: frames}
}
