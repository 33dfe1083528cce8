package ws

import (
	"crypto/rand"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/history"
)

// History bounds the messages that a room keeps for members that come back, or come late. A zero
// field has its default; a negative Bytes or TTL is no limit.
type History struct {
	// Size is the greatest number of messages. Default 100.
	Size int
	// Bytes bounds their memory, in bytes, with about 200 bytes for each message and with its
	// compressed forms. The newest message is kept at any size. Default 256 KiB.
	Bytes int64
	// TTL is the time from the publication of a message to its end. Default 5 minutes.
	TTL time.Duration
}

// The defaults of History.
const (
	defaultHistorySize  = 100
	defaultHistoryBytes = 256 << 10
	defaultHistoryTTL   = 5 * time.Minute
	maxHistorySize      = 1 << 20
)

// config returns h with its defaults, or an error that wraps ErrInvalidConfig and names the field of
// that type.
func (h History) config(typeName string) (history.Config, error) {
	if h.Size < 0 || h.Size > maxHistorySize {
		return history.Config{}, invalid(typeName+".Size", "must be between 0 and 1048576")
	}
	cfg := history.Config{Size: defaultHistorySize, Bytes: defaultHistoryBytes, TTL: defaultHistoryTTL}
	if h.Size > 0 {
		cfg.Size = h.Size
	}
	if h.Bytes != 0 {
		cfg.Bytes = max(0, h.Bytes)
	}
	if h.TTL != 0 {
		cfg.TTL = max(0, h.TTL)
	}
	return cfg, nil
}

// WithHistory makes the room keep the messages of PublishEvent and TypedEvent.Publish. Each has an
// offset, one more than the last, in one order for all members. A client that comes back with its
// last offset (JoinRoomFrom, or ws.join of HandleJoin) gets the rest, and a client that is too slow
// reads on later (CatchUp): docs/delivery.md states the guarantee. The room stays when
// its last member has left, for RoomConfig.EmptyRoomTTL or for the TTL of the history, whichever is
// longer. Other messages, such as those of BroadcastToRoom, are sent as ever and not kept.
//
// With a Broker, which has to be a HistoryBroker, the nodes share the history, and the offsets may have
// holes: see docs/cluster.md.
func WithHistory(h History) RoomOption {
	return func(o *roomOptions) { o.history = &h }
}

// Position is a place in the history of a room. The zero value is none. Immutable.
type Position struct {
	// Epoch names the history. It is another one after the room has ended and begun again, and
	// after a restart of the server, or of the store of a HistoryBroker.
	Epoch string `json:"epoch"`
	// Offset is the offset of the last message before the place, 0 before the first message.
	Offset uint64 `json:"offset"`
}

// roomHistory is the history of a room. Lock order: Client.mu, then mu, then the locks of a join
// and of a post (see docs/locks.md). Safe for concurrent use, except for tops.
type roomHistory struct {
	// Immutable.
	all    *histories
	ttl    time.Duration
	byJoin bool           // a join has created the room
	inbox  *inbox         // nil for a room that is no inbox
	stored *storedHistory // nil without a HistoryBroker

	// Loop-confined, each by its own loop: offset of the newest message that the loop has begun to
	// fan out. For an inbox see setTopInLoop.
	tops []uint64

	// Guarded by histories.mu.
	place int // in histories.list if listed

	// Guarded by mu. A publisher numbers a message and posts it with mu held, and a join takes its
	// position and posts its task with mu held. So each loop runs both in the order of the offsets,
	// and the place of a join among them is its position.
	mu     sync.Mutex
	epoch  string // only a stored history changes it
	log    history.Log[*engine.Frame]
	shift  uint64 // offsets in log less those of the epoch; 0 unless stored is set
	before uint64 // shift of the epoch before
	bytes  int64  // of log, as counted in all.bytes
	listed bool   // it is in histories.list
	ended  bool   // the room has ended, so log counts no more
}

// newRoomHistory returns the history of a new room.
func (m *Manager) newRoomHistory(cfg history.Config, byJoin bool) *roomHistory {
	h := &roomHistory{
		epoch: rand.Text()[:12], all: &m.histories, ttl: cfg.TTL, tops: make([]uint64, m.cfg.Loops),
		log: history.NewLog[*engine.Frame](cfg), byJoin: byJoin,
	}
	m.histories.count.Add(1)
	return h
}

// endUnused ends a room that a join has created, if it is empty and nothing was published in it, and
// reports whether it did. Otherwise a client could make us keep a room for each name that it thinks
// of. A publisher has the lock, too, so it finds the room ended or keeps it.
func (m *Manager) endUnused(r *roomEntry) (ended bool) {
	h := r.Data().history
	switch {
	case h == nil:
		return m.rooms.EndIfEmpty(r) || r.Data().byJoin && m.rooms.EndKeptIfEmpty(r)
	case !h.byJoin || r.Len() > 0:
		return false
	}
	h.mu.Lock()
	ended = h.unusedLocked() && m.rooms.EndKeptIfEmpty(r)
	h.mu.Unlock()
	if ended {
		m.histories.end(h)
	}
	return ended
}

// unusedLocked reports whether nothing was published in the room, as far as this node knows, and no
// join waits. A message that this node has published is possibly still on its way from the store.
func (h *roomHistory) unusedLocked() bool {
	s := h.stored
	return h.log.Top() == h.shift && (s == nil || !s.busy && len(s.waits) == 0 && !s.isUsed())
}

// keep returns the time for which the room stays when it is empty; h may be nil. endInbox ends the
// inboxes.
func (h *roomHistory) keep() time.Duration {
	switch {
	case h == nil:
		return 0
	case h.inbox != nil:
		return math.MaxInt64
	case h.stored != nil && h.stored.isUsed():
		return math.MaxInt64
	}
	return h.ttl
}

// keptFrame is a message of a history.
type keptFrame = history.Item[*engine.Frame]

func frameMemory(f *engine.Frame) int64 { return int64(f.Memory()) }

// appendLocked stores the message at that offset, which is greater than Log.Top.
func (h *roomHistory) appendLocked(offset uint64, f *engine.Frame, now time.Duration) {
	h.expireLocked(now)
	before := h.unackedLocked()
	h.log.AppendAt(offset, f, frameMemory(f), now-h.stored.messageAge())
	before.messages++
	h.noteLostLocked(before, UndeliveredFull)
	if h.inbox != nil {
		h.inbox.used = now
	}
	h.weighLocked()
}

// expireLocked drops the messages that have reached their TTL.
func (h *roomHistory) expireLocked(now time.Duration) {
	before := h.unackedLocked()
	h.log.Expire(now)
	h.noteLostLocked(before, UndeliveredExpired)
}

// weigh counts the memory of the messages from first to last anew: they have got compressed forms.
func (h *roomHistory) weigh(first, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.Weigh(first, last, frameMemory)
	h.weighLocked()
}

// weighLocked counts the memory of the history anew.
func (h *roomHistory) weighLocked() {
	n := h.log.Bytes() + h.idleMemoryLocked()
	if h.ended {
		n = 0
	}
	if n > 0 && !h.listed {
		h.listed = true
		h.all.add(h)
	}
	h.all.bytes.Add(n - h.bytes)
	h.bytes = n
}

// evictSome drops the oldest quarter of the messages, at least one, and returns their number.
func (h *roomHistory) evictSome() (evicted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.unackedLocked()
	evicted = h.log.Evict(max(1, h.log.Len()/4))
	h.noteLostLocked(before, UndeliveredBudget)
	h.weighLocked()
	return evicted
}

// expire drops the messages that have reached their TTL. unused reports whether the room is an
// inbox that was not used for its TTL.
func (h *roomHistory) expire(now time.Duration) (unused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked(now)
	if h.inbox != nil {
		unused = h.refreshInboxLocked(now)
	}
	h.weighLocked()
	if h.bytes == 0 && h.listed {
		h.listed = false
		h.all.remove(h)
	}
	return unused
}

// position returns the place behind the newest message.
func (h *roomHistory) position() Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.positionLocked()
}

func (h *roomHistory) positionLocked() Position { return Position{h.epoch, h.log.Top() - h.shift} }

// RoomPosition returns the place behind the newest message of the room's history; the zero
// Position for a room without a history. A handler that loads a state reads the position first,
// and the client joins with it as Since: it then gets each message that the state may lack. It
// returns ErrRoomNotFound; and with a HistoryBroker, which it asks if this node has no member in the
// room, ErrBrokerUnavailable and ErrOnEventLoop. Safe for concurrent use.
func (m *Manager) RoomPosition(roomID string) (Position, error) {
	r, ok := m.rooms.Get(roomID)
	if !ok {
		return Position{}, ErrRoomNotFound
	}
	h := r.Data().history
	switch {
	case h == nil:
		return Position{}, nil
	case h.stored != nil:
		return h.stored.position(h)
	}
	return h.position(), nil
}

// histories holds the histories of all rooms, and bounds their memory. Safe for concurrent use.
type histories struct {
	// Immutable.
	budget int64                // Config.HistoryBudget; 0 is no limit
	clock  func() time.Duration // of the engine
	bus    *EventBus

	// Atomic.
	count       atomic.Int64  // rooms with a history
	inboxes     atomic.Int64  // those that are inboxes
	bytes       atomic.Int64  // memory of all histories
	evicted     atomic.Uint64 // messages dropped for the budget
	gaps        atomic.Uint64 // gaps that members were told of
	replayed    atomic.Uint64 // messages read from a history for one member
	undelivered atomic.Uint64 // messages of inboxes that were dropped and not acknowledged
	invalidAcks atomic.Uint64 // acknowledgements that were refused

	mu   sync.Mutex
	list []*roomHistory // those with memory, and some without; guarded by mu
	hand int            // next place in list to evict from; guarded by mu
}

func (a *histories) add(h *roomHistory) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.place = len(a.list)
	a.list = append(a.list, h)
}

func (a *histories) remove(h *roomHistory) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := len(a.list) - 1
	a.list[h.place] = a.list[last]
	a.list[h.place].place = h.place
	a.list[last] = nil
	a.list = a.list[:last]
}

// end forgets the history of a room that has ended; h may be nil.
func (a *histories) end(h *roomHistory) {
	if h != nil && h.end() {
		h.reportLost()
		h.endStored()
	}
}

// end ends the counting of a history whose room has ended, and reports whether that is news. Members that are
// behind may still read the log.
func (h *roomHistory) end() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	h.addLostLocked(h.unackedLocked(), h.log.Top()+1, UndeliveredDeleted)
	h.ended = true
	h.weighLocked()
	if h.listed {
		h.listed = false
		h.all.remove(h)
	}
	h.all.count.Add(-1)
	if h.inbox != nil {
		h.all.inboxes.Add(-1)
	}
	return true
}

// keepBudget drops messages while all histories together exceed the budget. It visits the rooms
// in turn, and drops the oldest quarter of each; it ends an inbox that nobody is in and that has no
// messages. It must not be called with a roomHistory.mu held.
func (m *Manager) keepBudget() {
	a := &m.histories
	for a.budget > 0 && a.bytes.Load() > a.budget {
		h := a.next()
		if h == nil {
			return
		}
		evicted := h.evictSome()
		a.evicted.Add(uint64(evicted))
		h.reportLost()
		if evicted == 0 && h.inbox != nil {
			m.endInbox(h, a.clock())
		}
	}
}

// next returns the next room of the list, nil if there is none.
func (a *histories) next() *roomHistory {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) == 0 {
		return nil
	}
	a.hand = (a.hand + 1) % len(a.list)
	return a.list[a.hand]
}

// expireHistories drops the messages that have reached their TTL, in all rooms, and ends the inboxes
// that were not used for long.
func (m *Manager) expireHistories(now time.Duration) {
	a := &m.histories
	a.mu.Lock()
	list := slices.Clone(a.list)
	a.mu.Unlock()
	for _, h := range list {
		unused := h.expire(now)
		h.reportLost()
		if unused {
			m.endInbox(h, now-h.ttl)
		}
	}
	m.keepBudget() // inboxes that were left count more
}
