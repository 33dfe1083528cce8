package ws

const (
	// maxQueuedEvents bounds the events that wait, without connects and disconnects.
	maxQueuedEvents = 8192
	// maxQueuedEventBytes bounds the copies of messages (EventMessageReceived) that
	// wait or are being delivered. One message of any size is always taken.
	maxQueuedEventBytes = 8 << 20
	// messageCost is the memory that a copy of a message takes beside its texts.
	messageCost = 128
	// eventChunkSize is the number of events for which memory is allocated at once.
	eventChunkSize = 64
)

// eventQueue holds the events that wait. Its memory is given up chunk by chunk,
// as the events are delivered. Not safe for concurrent use.
type eventQueue struct {
	first, last *eventChunk // nil if no event waits
	read        int         // events of first that were taken
	len         int
	lifecycle   int // connects and disconnects among them
	bytes       int // of messages, those that are being delivered included
}

// eventChunk holds events in the order in which they came.
type eventChunk struct {
	events [eventChunkSize]Event
	n      int
	next   *eventChunk
}

// takes reports whether there is space for an event whose message, if any, has
// so many bytes.
func (q *eventQueue) takes(bytes int) bool {
	if q.len-q.lifecycle >= maxQueuedEvents {
		return false
	}
	return bytes == 0 || q.bytes == 0 || q.bytes+bytes <= maxQueuedEventBytes
}

func (q *eventQueue) push(e Event) {
	switch {
	case q.last == nil:
		q.last = &eventChunk{}
		q.first, q.read = q.last, 0
	case q.last.n == eventChunkSize:
		q.last.next = &eventChunk{}
		q.last = q.last.next
	}
	q.last.events[q.last.n] = e
	q.last.n++
	q.len++
	if e.Type.bit()&lifecycle != 0 {
		q.lifecycle++
	}
	q.bytes += e.bytes()
}

// pop takes the first event; there must be one. The bytes of
// its message count until the caller takes them off, when it is delivered.
func (q *eventQueue) pop() (e Event, bytes int) {
	e = q.first.events[q.read]
	q.first.events[q.read] = Event{}
	q.read++
	q.len--
	if e.Type.bit()&lifecycle != 0 {
		q.lifecycle--
	}
	if q.read == q.first.n {
		q.first, q.read = q.first.next, 0
		if q.first == nil {
			q.last = nil
		}
	}
	return e, e.bytes()
}

// bytes returns the memory that the event's message takes.
func (e *Event) bytes() int {
	if m, ok := e.Data.(*Message); ok {
		return m.bytes()
	}
	return 0
}

// bytes returns the memory that a copy of m takes.
func (m *Message) bytes() int {
	return messageCost + len(m.Event) + len(m.RequestID) + len(m.Data)
}
