package ws

import (
	"crypto/rand"
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

// config returns h with its defaults, or an error that wraps ErrInvalidConfig.
func (h History) config() (history.Config, error) {
	if h.Size < 0 || h.Size > maxHistorySize {
		return history.Config{}, invalid("History.Size", "must be between 0 and 1048576")
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
func WithHistory(h History) RoomOption {
	return func(o *roomOptions) { o.history = &h }
}

// Position is a place in the history of a room. The zero value is none. Immutable.
type Position struct {
	// Epoch names the history. It is another one after the room has ended and begun again, and
	// after a restart of the server.
	Epoch string `json:"epoch"`
	// Offset is the offset of the last message before the place, 0 before the first message.
	Offset uint64 `json:"offset"`
}

// roomHistory is the history of a room. Lock order: Client.mu, then mu, then the locks of a join
// and of a post (see docs/locks.md). Safe for concurrent use, except for tops.
type roomHistory struct {
	// Immutable.
	epoch  string
	all    *histories
	ttl    time.Duration
	byJoin bool // a join has created the room

	// Loop-confined, each by its own loop: offset of the newest message that the loop has begun to
	// fan out.
	tops []uint64

	// Guarded by histories.mu.
	place int // in histories.list; -1 when the room has ended

	// Guarded by mu. A publisher numbers a message and posts it with mu held, and a join takes its
	// position and posts its task with mu held. So each loop runs both in the order of the offsets,
	// and the place of a join among them is its position.
	mu    sync.Mutex
	log   history.Log[*engine.Frame]
	bytes int64 // of log, as counted in all.bytes
	ended bool  // the room has ended, so log counts no more
}

// newRoomHistory returns the history of a new room.
func (m *Manager) newRoomHistory(cfg history.Config, byJoin bool) *roomHistory {
	h := &roomHistory{
		epoch: rand.Text()[:12], all: &m.histories, ttl: cfg.TTL, tops: make([]uint64, m.cfg.Loops),
		log: history.NewLog[*engine.Frame](cfg), byJoin: byJoin,
	}
	m.histories.add(h)
	return h
}

// endUnused ends a room that a join has created, if it is empty and nothing was published in it, and
// reports whether it did. Otherwise a client could make us keep a room for each name that it thinks
// of. A publisher has the lock, too, so it finds the room ended or keeps it.
func (m *Manager) endUnused(r *roomEntry) (ended bool) {
	h := r.Data().history
	switch {
	case h == nil:
		return m.rooms.EndIfEmpty(r)
	case !h.byJoin || r.Len() > 0:
		return false
	}
	h.mu.Lock()
	ended = h.log.Top() == 0 && m.rooms.EndKeptIfEmpty(r)
	h.mu.Unlock()
	if ended {
		m.histories.end(h)
	}
	return ended
}

// keep returns the time for which the room stays when it is empty; h may be nil.
func (h *roomHistory) keep() time.Duration {
	if h == nil {
		return 0
	}
	return h.ttl
}

func frameMemory(f *engine.Frame) int64 { return int64(f.Memory()) }

// appendLocked stores a message and returns its offset.
func (h *roomHistory) appendLocked(f *engine.Frame, now time.Duration) (offset uint64) {
	offset = h.log.Append(f, frameMemory(f), now)
	h.weighLocked()
	return offset
}

// after is Log.After.
func (h *roomHistory) after(
	after, last uint64, dst []*engine.Frame, now time.Duration,
) (_ []*engine.Frame, from uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.Expire(now)
	dst, from = h.log.After(after, last, dst, frameMemory)
	h.weighLocked()
	return dst, from
}

// weighLocked counts the memory of the log anew.
func (h *roomHistory) weighLocked() {
	n := h.log.Bytes()
	if h.ended {
		n = 0
	}
	h.all.bytes.Add(n - h.bytes)
	h.bytes = n
}

// evictSome drops the oldest quarter of the messages, at least one, and returns their number.
func (h *roomHistory) evictSome() (evicted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	evicted = h.log.Evict(max(1, h.log.Len()/4))
	h.weighLocked()
	return evicted
}

// expire drops the messages that have reached their TTL.
func (h *roomHistory) expire(now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.Expire(now)
	h.weighLocked()
}

// position returns the place behind the newest message.
func (h *roomHistory) position() Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.positionLocked()
}

func (h *roomHistory) positionLocked() Position { return Position{h.epoch, h.log.Top()} }

// RoomPosition returns the place behind the newest message of the room's history; the zero
// Position for a room without a history. A handler that loads a state reads the position first,
// and the client joins with it as Since: it then gets each message that the state may lack. It
// returns ErrRoomNotFound. Safe for concurrent use.
func (m *Manager) RoomPosition(roomID string) (Position, error) {
	r, ok := m.rooms.Get(roomID)
	if !ok {
		return Position{}, ErrRoomNotFound
	}
	if h := r.Data().history; h != nil {
		return h.position(), nil
	}
	return Position{}, nil
}

// histories holds the histories of all rooms, and bounds their memory. Safe for concurrent use.
type histories struct {
	// Immutable.
	budget int64                // Config.HistoryBudget; 0 is no limit
	clock  func() time.Duration // of the engine

	bytes    atomic.Int64  // memory of all histories
	evicted  atomic.Uint64 // messages dropped for the budget
	gaps     atomic.Uint64 // gaps that members were told of
	replayed atomic.Uint64 // messages read from a history for one member

	mu   sync.Mutex
	list []*roomHistory // guarded by mu
	hand int            // next place in list to evict from; guarded by mu
}

func (a *histories) add(h *roomHistory) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.place = len(a.list)
	a.list = append(a.list, h)
}

// end forgets the history of a room that has ended.
func (a *histories) end(h *roomHistory) {
	if h == nil || !a.remove(h) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true // members that are behind may still read the log
	h.weighLocked()
}

// remove takes h off the list, and reports whether it was on it.
func (a *histories) remove(h *roomHistory) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.place < 0 {
		return false
	}
	last := len(a.list) - 1
	a.list[h.place] = a.list[last]
	a.list[h.place].place = h.place
	a.list[last] = nil
	a.list = a.list[:last]
	h.place = -1
	return true
}

func (a *histories) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list)
}

// keepBudget drops messages while all histories together exceed the budget. It visits the rooms
// in turn, and drops the oldest quarter of each. It must not be called with a roomHistory.mu held.
func (a *histories) keepBudget() {
	for a.budget > 0 && a.bytes.Load() > a.budget {
		h := a.next()
		if h == nil {
			return
		}
		a.evicted.Add(uint64(h.evictSome()))
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

// expire drops the messages that have reached their TTL, in all rooms.
func (a *histories) expire(now time.Duration) {
	a.mu.Lock()
	list := slices.Clone(a.list)
	a.mu.Unlock()
	for _, h := range list {
		h.expire(now)
	}
}
