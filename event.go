package ws

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// EventType names the kind of an Event.
type EventType string

// The events, with the type of their Data.
const (
	// EventClientConnected is the first event of a client. Data: nil.
	EventClientConnected EventType = "client.connected"
	// EventClientDisconnected comes after the client's last message was handled, and
	// before the EventClientConnected of a client that takes over its ID, even while a
	// handler of the first client still runs. Data: *CloseError.
	EventClientDisconnected EventType = "client.disconnected"
	// EventMessageReceived reports a valid message, before its handler runs.
	// Data: *Message, a copy that the subscriber may keep.
	EventMessageReceived EventType = "message.received"
	// EventMessageSent reports a message that a Client method has queued;
	// broadcasts are not reported for each member. Data: nil.
	EventMessageSent EventType = "message.sent"
	// EventRoomJoined and EventRoomLeft. Data: the room's ID, a string.
	EventRoomJoined EventType = "room.joined"
	EventRoomLeft   EventType = "room.left"
	// EventRoomEnded says that a room has ended: by DeleteRoom, then before the
	// EventRoomLeft of its members, with its last member, or because it was empty for
	// RoomConfig.EmptyRoomTTL. It is an event of no client. Data: the room's ID, a string.
	EventRoomEnded EventType = "room.ended"
	// EventRoomGap says that a member does not get some messages of a room with a history. For
	// GapBroker it is one event of no client for all members. Data: RoomGap.
	EventRoomGap EventType = "room.gap"
	// EventUndelivered says that messages of a user's inbox were dropped before the user's devices had
	// acknowledged them. It is an event of no client. Data: Undelivered.
	EventUndelivered EventType = "inbox.undelivered"
	// EventError reports a handler's panic or internal error, and a client
	// that broke the protocol or a limit and is closed. Data: error.
	EventError EventType = "error"
)

// Event is a change of a client or room, or an error.
type Event struct {
	Type     EventType
	ClientID string
	// Client is the client of ClientID, also after it has gone: its UserID, metadata and
	// address stay readable. It is nil for an event of no client.
	Client *Client
	Data   any
	Time   time.Time
}

// EventBus hands events to subscribers, one after the other on one goroutine of
// its own. For one client ID, and for one client and room, they come in the order of the
// changes. The bus never blocks an event loop. Connects and disconnects are never dropped:
// while 8,192 of them wait, or twice Config.MaxConnections if that is more, new clients are
// refused as if they exceeded MaxConnections. The other events are dropped, and counted,
// while 8,192 of them or 8 MiB of received messages wait. Safe for concurrent use.
type EventBus struct {
	logger  *slog.Logger
	most    int // connects and disconnects that may wait when a client is accepted
	dropped atomic.Int64
	wanted  atomic.Uint32 // a bit for each type with subscribers
	done    chan struct{}

	out handout

	mu          sync.Mutex
	subscribers map[EventType][]func(Event) // guarded by mu; the slices are copied on write
	queue       eventQueue                  // guarded by mu
	running     bool                        // guarded by mu
	closed      bool                        // guarded by mu
	ready       sync.Cond                   // on mu
}

func newEventBus(logger *slog.Logger, maxConnections int) *EventBus {
	b := &EventBus{
		logger: logger, most: max(maxQueuedEvents, maxConnections, 2*maxConnections),
		done: make(chan struct{}), subscribers: make(map[EventType][]func(Event)),
	}
	b.ready.L = &b.mu
	return b
}

// GetDroppedEventCount returns the number of dropped events.
func (b *EventBus) GetDroppedEventCount() int64 { return b.dropped.Load() }

// ResetDroppedEventCount sets the count of dropped events to 0.
func (b *EventBus) ResetDroppedEventCount() { b.dropped.Store(0) }

// bit returns the bit of the event type in EventBus.wanted.
func (t EventType) bit() uint32 {
	switch t {
	case EventClientConnected:
		return 1 << 0
	case EventClientDisconnected:
		return 1 << 1
	case EventMessageReceived:
		return 1 << 2
	case EventMessageSent:
		return 1 << 3
	case EventRoomJoined:
		return 1 << 4
	case EventRoomLeft:
		return 1 << 5
	case EventError:
		return 1 << 6
	case EventRoomEnded:
		return 1 << 7
	case EventRoomGap:
		return 1 << 8
	case EventUndelivered:
		return 1 << 9
	}
	return 0
}

// lifecycle is the set of events that are never dropped.
const lifecycle = 1<<0 | 1<<1

func (b *EventBus) subscribe(t EventType, fn func(Event)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.subscribers[t] = append(slices.Clip(b.subscribers[t]), fn)
	b.wanted.Or(t.bit())
	if !b.running {
		b.running = true
		go b.run() // owned by the bus: close ends it and waits
	}
}

// wants reports whether t has subscribers. Call it before making an event.
func (b *EventBus) wants(t EventType) bool { return b.wanted.Load()&t.bit() != 0 }

// isBehind reports whether connects and disconnects wait up to their bound: then no client may
// be accepted.
func (b *EventBus) isBehind() bool {
	if b.wanted.Load()&lifecycle == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.queue.lifecycle >= b.most
}

// publish queues an event if t has subscribers; c may be nil. It runs no code of the
// application. Where the order of events matters, the caller holds the lock under which the
// change was decided.
func (b *EventBus) publish(t EventType, c *Client, data any) {
	if !b.wants(t) {
		return
	}
	e := Event{Type: t, Client: c, Data: data}
	if c != nil {
		e.ClientID = c.ID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Time = time.Now()
	if b.closed || (t.bit()&lifecycle == 0 && !b.queue.takes(e.bytes())) {
		b.dropped.Add(1)
		return
	}
	b.queue.push(e)
	b.ready.Signal()
}

// publishMessage queues a copy of m, which is borrowed, if EventMessageReceived has
// subscribers. It makes no copy without space in the queue.
func (b *EventBus) publishMessage(c *Client, m *Message) {
	if !b.wants(EventMessageReceived) {
		return
	}
	b.mu.Lock()
	space := b.queue.takes(m.bytes())
	b.mu.Unlock()
	if !space {
		b.dropped.Add(1)
		return
	}
	b.publish(EventMessageReceived, c, m.clone())
}

// run hands out events until close, and then the events that wait.
func (b *EventBus) run() {
	closed := false
	defer func() {
		if closed {
			close(b.done)
		} else {
			go b.run() // a subscriber has ended the goroutine (runtime.Goexit)
		}
	}()
	for !closed {
		closed = !b.deliverNext()
	}
}

// handout is the event that is handed out, with the subscribers that do not have it yet. It
// outlives a goroutine that a subscriber ends. Only the bus's goroutine touches it.
type handout struct {
	event       Event
	bytes       int // bytes of the event in the queue's sum
	subscribers []func(Event)
}

// deliverNext hands out one event. It returns false if the bus is closed and no event waits.
func (b *EventBus) deliverNext() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.out.subscribers) == 0 {
		for b.queue.len == 0 && !b.closed {
			b.ready.Wait()
		}
		if b.queue.len == 0 {
			return false
		}
		b.out.event, b.out.bytes = b.queue.pop()
		b.out.subscribers = b.subscribers[b.out.event.Type]
	}
	b.deliverUnlocked()
	return true
}

// deliverUnlocked calls the subscribers without mu, and holds mu again when they have
// returned or one has ended the goroutine.
func (b *EventBus) deliverUnlocked() {
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		if len(b.out.subscribers) == 0 {
			b.queue.bytes -= b.out.bytes
			b.out = handout{}
		}
	}()
	for len(b.out.subscribers) > 0 {
		fn := b.out.subscribers[0]
		b.out.subscribers = b.out.subscribers[1:]
		b.call(fn, b.out.event)
	}
}

// call runs one subscriber, and logs a panic in it.
func (b *EventBus) call(fn func(Event), e Event) {
	defer protect(nil, func(r any) {
		b.logger.Error("ws: subscriber panicked", slog.String("event", string(e.Type)),
			slog.Any("panic", r), loglimit.Stack())
	})
	fn(e)
}

// close refuses further events. It returns a channel that is closed when the events that wait
// have been handed out.
func (b *EventBus) close() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.ready.Broadcast()
		if !b.running {
			close(b.done)
		}
	}
	return b.done
}

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

// eventQueue holds the events that wait. It releases its memory chunk by chunk, as the events
// are delivered. Not safe for concurrent use.
type eventQueue struct {
	first, last *eventChunk // nil if no event waits
	read        int         // events taken from first
	len         int
	lifecycle   int // connects and disconnects among them
	bytes       int // of messages, including messages that are being delivered
}

// eventChunk holds events in the order in which they came.
type eventChunk struct {
	events [eventChunkSize]Event
	n      int
	next   *eventChunk
}

// takes reports whether there is space for an event with a message of that many bytes; 0 is an
// event without a message.
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

// pop removes and returns the first event; there must be one. The bytes of its message count
// until the caller subtracts them after the delivery.
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

// bytes returns the memory of the event's message, 0 for none.
func (e *Event) bytes() int {
	if m, ok := e.Data.(*Message); ok {
		return m.bytes()
	}
	return 0
}

// bytes returns the memory of a copy of m.
func (m *Message) bytes() int {
	return messageCost + len(m.Event) + len(m.RequestID) + len(m.Data)
}
