package ws

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"time"
	"unsafe"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/measure"
)

// This file opens internals to the tests in package ws_test.

// MinTable is the smallest size of a ClientTable.
const MinTable = minTable

// ClientTable opens clientTable.
type ClientTable struct{ t clientTable }

func NewClientTable() *ClientTable { return &ClientTable{clientTable{seed: maphash.MakeSeed()}} }

func (t *ClientTable) Get(id string) *Client { return t.t.get(id) }
func (t *ClientTable) Insert(c *Client) bool { return t.t.insert(c) }
func (t *ClientTable) Remove(c *Client)      { t.t.remove(c) }
func (t *ClientTable) Size() int             { return t.t.size }
func (t *ClientTable) Slots() int            { return len(t.t.slots) }

// Registry opens registry.
type Registry struct{ r *registry }

func NewRegistry() *Registry { return &Registry{newRegistry(newEventBus(slog.Default(), 1), nil)} }

func (r *Registry) Admit(c *Client, limit int) error { _, err := r.r.admit(c, limit); return err }
func (r *Registry) Opened(c *Client)                 { r.r.opened(c) }
func (r *Registry) RemoveDevice(c *Client)           { r.r.removeDevice(c) }
func (r *Registry) Devices(userID int64) []*Client   { return r.r.devices(user{id: userID}) }
func (r *Registry) Remove(c *Client)                 { r.r.abandon(c) }

// RetryReason and RetryWithin open the reasons of close frames.
var RetryReason, RetryWithin = retryReason, retryWithin

// NewTestClient returns a client of m that is not connected.
func NewTestClient(m *Manager) *Client { return m.newClient() }

// BreakSlowWatch makes the event loops panic where a client of m becomes slow, until mend.
func BreakSlowWatch(m *Manager) (mend func()) {
	m.slow.mu.Lock()
	defer m.slow.mu.Unlock()
	pending := m.slow.pending
	m.slow.pending = nil
	return func() {
		m.slow.mu.Lock()
		defer m.slow.mu.Unlock()
		m.slow.pending = pending
	}
}

// HandleMessage handles payload as a text message of c.
func HandleMessage(c *Client, payload []byte) { c.handle(OpText, payload) }

// LimitedClientSize is the size of a client with a RateLimit.
const LimitedClientSize = unsafe.Sizeof(limitedClient{})

// Limiter opens limiter, with its limits.
type Limiter struct {
	limits  *limits
	limiter limiter
}

// NewLimiter returns nil if r is no limit.
func NewLimiter(r RateLimit) *Limiter {
	if lim := newLimits(r); lim != nil {
		return &Limiter{limits: lim}
	}
	return nil
}

func (l *Limiter) Admit(now time.Duration, n int) bool { return l.limiter.admit(l.limits, now, n) }
func (l *Limiter) Exhausted() bool                     { return l.limiter.exhausted(l.limits) }

// Enqueue puts payload into the mailbox of c as a text message.
func Enqueue(c *Client, payload []byte) {
	c.enqueue(OpText, payload, c.manager.workers, measure.Sample{})
}

// MaxPooledMessages bounds the memory of a mailbox that is used again.
const MaxPooledMessages = maxPooledMessages

// MailboxCap returns how many messages fit into the memory of c's mailbox.
func MailboxCap(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cap(c.lazy.mailbox.messages)
}

// HasLazyState reports whether c has lazy state.
func HasLazyState(c *Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lazy != nil
}

// WorkersClosed reports whether the worker pool of m refuses tasks.
func WorkersClosed(m *Manager) bool { return !m.workers.Submit(taskFunc(func() {})) }

// taskFunc is a function as a task of the workers.
type taskFunc func()

// Run calls f.
func (f taskFunc) Run() { f() }

// MaxQueuedEventBytes bounds the messages that wait in an EventBus.
const MaxQueuedEventBytes = maxQueuedEventBytes

// EventQueue opens eventQueue.
type EventQueue struct{ q eventQueue }

func (q *EventQueue) Push(m *Message) { q.q.push(Event{Data: m}) }
func (q *EventQueue) Pop() (m *Message, bytes int) {
	e, bytes := q.q.pop()
	return e.Data.(*Message), bytes
}
func (q *EventQueue) Len() int        { return q.q.len }
func (q *EventQueue) Bytes() int      { return q.q.bytes }
func (q *EventQueue) HasMemory() bool { return q.q.first != nil }

// LoopStatsOf returns counts of the engine as LoopStats.
var LoopStatsOf = loopStats

// MaxQueuedEvents bounds the events that wait in an EventBus.
const MaxQueuedEvents = maxQueuedEvents

// FillEventBus publishes n events of m.
func FillEventBus(m *Manager, t EventType, n int) {
	for range n {
		m.EventBus.publish(t, nil, nil)
	}
}

// QueuedLifecycle returns how many connects and disconnects of m wait.
func QueuedLifecycle(m *Manager) int {
	m.EventBus.mu.Lock()
	defer m.EventBus.mu.Unlock()
	return m.EventBus.queue.lifecycle
}

// Negotiate returns the subprotocol and the extensions that the answer to a request with
// header h has.
func Negotiate(c *Config, h http.Header, opts ...ClientOption) (subprotocol, extensions string, err error) {
	var o clientOptions
	for _, opt := range opts {
		opt(&o)
	}
	cfg := c.withDefaults()
	shake, err := cfg.negotiate(&http.Request{Header: h}, o)
	return shake.accept.Subprotocol, shake.accept.Extensions, err
}

// AllowsOrigin reports whether a page of that origin may connect to host.
func AllowsOrigin(c *Config, origin, host string) bool {
	return c.allowsOrigin(&http.Request{Host: host, Header: http.Header{"Origin": {origin}}})
}

// UnmarshalJSON is unmarshalJSON.
var UnmarshalJSON = unmarshalJSON

// EncodeJSON returns a copy of the result of encodeJSON.
func EncodeJSON(c *Config, v any) (string, error) {
	data, e, err := c.encodeJSON(v)
	defer e.release()
	return string(data), err
}

// Meter opens meter.
type Meter struct{ m meter }

func (m *Meter) Count(now time.Duration)        { m.m.count(now) }
func (m *Meter) Rate(now time.Duration) float64 { return m.m.rate(now) }

// RoundTripInAWord returns d as a client keeps it.
func RoundTripInAWord(d time.Duration) time.Duration { return newRoundTrip(d).duration() }

// PublishStored publishes a message that a store has given that offset. One goroutine publishes to
// the room.
func PublishStored(m *Manager, room string, offset uint64) error {
	return postStored(m, room, &broadcast{offset: offset, frame: storedFrame(m, room, offset)})
}

// SkipStored notes that the messages of the room up to the offset are lost.
func SkipStored(m *Manager, room string, offset uint64) error {
	return postStored(m, room, &broadcast{offset: offset})
}

func postStored(m *Manager, room string, b *broadcast) error {
	r, _ := m.rooms.Get(room)
	b.manager, b.room = m, r
	_, err := m.keepAndPost(context.Background(), r.Data().history, &publication{room: r}, b, 0)
	return err
}

func storedFrame(m *Manager, room string, offset uint64) *engine.Frame {
	r, _ := m.rooms.Get(room)
	n := envelope.Notify{Event: "n", Room: room, Data: []byte("1")}
	plain, place := n.Append(nil)
	payload, ok := envelope.AppendStored(nil, plain, place, offset, r.Data().history.position().Offset)
	if !ok {
		panic("ws: the place of the offset is wrong")
	}
	return newFrame(OpText, payload, engine.Handling{Policy: engine.CatchUp, Scope: &r.Data().drops})
}

// TakeRoomOut is the first step of DeleteRoom: the room has ended, and its members do not know yet.
func TakeRoomOut(m *Manager, id string) { m.rooms.Delete(id) }
