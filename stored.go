package ws

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/history"
)

// storedHistory is the part of a roomHistory whose messages are in the store of a HistoryBroker: the
// log is a cache. It is cold, without a log, until a client wants to join; then the node subscribes to
// the messages, reads the store, and keeps the log up to date while there are members.
//
// One goroutine at a time appends to the log: the one that has set busy. It is the broker's, with a
// message that follows the log, or a worker with a syncJob, which reads the store if messages are
// missing. Offsets in the log are those of the store plus roomHistory.shift, so that they grow
// also when the store begins a new history.
type storedHistory struct {
	// Immutable.
	node *node
	room string
	keep History
	cfg  history.Config

	used atomic.Int64 // time of the last publish of this node; atomic

	// Guarded by roomHistory.mu.
	loaded  bool // the log has the messages of the store up to its top
	busy    bool // a goroutine appends, or a syncJob is queued
	again   bool // the store has to be read
	pending pendingMessages
	waits   map[*Client]*joinWait // joins that wait for the store
	heard   time.Duration         // time at which the log was last known to be up to date
	read    time.Duration         // time of the last read
	doubts  int                   // reads in a row that have found an older store
	hole    uint64                // top of the log at the last hole
	tries   int                   // reads that have not filled it

	// Of the goroutine that has set busy.
	age   time.Duration // of the message that is appended
	fresh *freshLog     // the log to install
}

// storeWorkers is the number of goroutines of a node that read the store at the same time.
const storeWorkers = 8

// never is a time that has been long ago.
const never = time.Duration(math.MinInt64 / 2)

// storedRooms holds the histories that are not cold, or that joins wait for. Safe for concurrent use.
type storedRooms struct {
	mu   sync.Mutex
	list map[*roomHistory]struct{} // guarded by mu
}

func (s *storedRooms) add(h *roomHistory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list[h] = struct{}{}
}

func (s *storedRooms) remove(h *roomHistory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.list, h)
}

func (s *storedRooms) all() []*roomHistory {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*roomHistory, 0, len(s.list))
	for h := range s.list {
		all = append(all, h)
	}
	return all
}

// takes returns an error if h is not nil and the Broker cannot store it.
func (n *node) takes(h *History) error {
	return invalidIf(h != nil && n != nil && n.store == nil, "History", "needs a HistoryBroker in place of a Broker")
}

// beginStored makes h, which no other goroutine has yet, the cache of the history of that room.
func (n *node) beginStored(h *roomHistory, room string, cfg history.Config) {
	keep := History{cfg.Size, cfg.Bytes, cfg.TTL}
	if keep.Bytes == 0 {
		keep.Bytes = -1
	}
	if keep.TTL == 0 {
		keep.TTL = -1
	}
	h.epoch = ""
	h.stored = &storedHistory{
		node: n, room: room, keep: keep, cfg: cfg, waits: make(map[*Client]*joinWait), heard: never, read: never,
	}
	h.stored.used.Store(int64(never))
}

// topic is the topic of the messages.
func (s *storedHistory) topic() Topic { return Topic{TopicHistory, s.room} }

// isStored reports whether the messages are in a store; h may be nil.
func (h *roomHistory) isStored() bool { return h != nil && h.stored != nil }

// storedRoom returns the room of that ID and its history, if the store has its messages.
func (n *node) storedRoom(id string) (*roomEntry, *roomHistory, bool) {
	r, ok := n.manager.rooms.Get(id)
	if !ok || !r.Data().history.isStored() {
		return nil, nil, false
	}
	return r, r.Data().history, true
}

// isUsed reports whether this node has published to the room so lately that an empty room stays.
func (s *storedHistory) isUsed() bool {
	m := s.node.manager
	return m.engine.Clock()-time.Duration(s.used.Load()) < max(s.cfg.TTL, m.cfg.Room.EmptyRoomTTL)
}

// messageAge returns the age of the message that is appended, 0 if s is nil.
func (s *storedHistory) messageAge() time.Duration {
	if s == nil {
		return 0
	}
	return s.age
}

// position returns the position of the log, or asks the store if the log is not loaded.
func (s *storedHistory) position(h *roomHistory) (Position, error) {
	h.mu.Lock()
	loaded, at := s.loaded, h.positionLocked()
	h.mu.Unlock()
	n := s.node
	switch {
	case loaded:
		return at, nil
	case n.manager.engine.OnLoop():
		return Position{}, ErrOnEventLoop
	case !n.up.Load():
		return Position{}, n.refuse()
	}
	page, err := n.readPage(s.room, 0, 1)
	if err != nil {
		return Position{}, n.storeError(err)
	}
	return Position{page.Epoch, page.Top}, nil
}

// headLocked returns the offset of the newest message in the store, as far as the log knows.
func (h *roomHistory) headLocked() uint64 { return h.log.Top() - h.shift }

// ReceiveStored handles a message of a history.
func (n brokerNode) ReceiveStored(room, epoch string, msg StoredMessage) {
	_, h, ok := n.storedRoom(room)
	if !ok || !h.receive(epoch, &msg) {
		n.counts.unwanted.Add(1)
		return
	}
	n.counts.received.Add(1)
}

// receive appends a message that follows the log, or has the store read. It returns false if nobody
// wants the message.
func (h *roomHistory) receive(epoch string, msg *StoredMessage) (wanted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch s, head := h.stored, h.headLocked(); {
	case h.ended, !s.loaded && !s.busy:
		return false
	case s.busy:
		s.again = s.pending.add(epoch, msg) || s.again
	case epoch == h.epoch && msg.Offset <= head: // it was read already
	case epoch == h.epoch && msg.Prev <= head:
		s.busy = true
		h.mu.Unlock()
		err := h.apply(msg)
		h.mu.Lock()
		h.appliedLocked(err)
		if s.again || s.pending.len() > 0 {
			h.submitLocked()
		} else {
			s.busy = false
		}
	case epoch != h.epoch && h.all.clock()-s.read < minReadInterval:
		s.heard = never // checkStores looks soon
	default:
		s.again = s.pending.add(epoch, msg) || s.again
		h.readAgainLocked()
	}
	return true
}

// minReadInterval is the time between two reads of a room that are only for positions or epochs that
// the node does not know.
const minReadInterval = time.Second

// appliedLocked notes the end of an attempt to append.
func (h *roomHistory) appliedLocked(err error) {
	s := h.stored
	switch {
	case err == nil:
		s.heard, s.doubts = h.all.clock(), 0
	case errors.Is(err, ErrRoomNotFound), errors.Is(err, ErrManagerStopped):
	default: // an event loop is held, or has too much to do; checkStores comes back to it
		s.node.counts.undelivered.Add(1)
		s.again, s.heard = true, never
	}
}

// readAgainLocked has the store read.
func (h *roomHistory) readAgainLocked() {
	h.stored.again = true
	if !h.stored.busy {
		h.stored.busy = true
		h.submitLocked()
	}
}

// submitLocked queues a syncJob. busy is set.
func (h *roomHistory) submitLocked() { h.stored.node.jobs.Submit((*syncJob)(h)) }

// apply appends a message, with busy set.
func (h *roomHistory) apply(msg *StoredMessage) error {
	s := h.stored
	r, _, ok := s.node.storedRoom(s.room)
	if !ok || r.Data().history != h {
		return ErrRoomNotFound
	}
	m := s.node.manager
	frame := s.node.storedFrame(r, msg, h.position().Offset)
	b := &broadcast{manager: m, room: r, frame: frame, offset: msg.Offset + h.shift}
	if frame != nil {
		b.sample = m.engine.SamplePublish()
	}
	s.age = msg.Age
	_, err := m.keepAndPost(s.node.ctx, h, &publication{room: r}, b, 0)
	return err
}

// skip notes that the messages up to the offset are lost, with busy set. Members read a gap.
func (h *roomHistory) skip(offset uint64) error {
	s := h.stored
	r, _, ok := s.node.storedRoom(s.room)
	if !ok || r.Data().history != h {
		return ErrRoomNotFound
	}
	b := &broadcast{manager: s.node.manager, room: r, offset: offset + h.shift}
	_, err := s.node.manager.keepAndPost(s.node.ctx, h, &publication{room: r}, b, 0)
	return err
}

// storedFrame returns the message as members read it; nil, which is a gap for them, if no node of this
// version has sent it. prev is the offset of the message before it.
func (n *node) storedFrame(r *roomEntry, msg *StoredMessage, prev uint64) *engine.Frame {
	var in cluster.Message
	err := in.Decode(msg.Data)
	notify, place, ok := cluster.CutStored(in.Payload)
	if err == nil && ok && in.Kind == cluster.Stored {
		var payload []byte
		payload, ok = envelope.AppendStored(make([]byte, 0, len(notify)+storedFields), notify, place, msg.Offset, prev)
		if ok {
			return newFrame(OpText, payload, engine.Handling{Policy: engine.CatchUp, Scope: &r.Data().drops})
		}
	}
	n.counts.malformed.Add(1)
	return nil
}

// storedFields is the greatest length of the fields offset and prev.
const storedFields = len(`"offset":,"prev":,`) + 2*envelope.OffsetWidth

// cool drops the log of a room that the node is not subscribed to any more.
func (h *roomHistory) cool(r *roomEntry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stored
	if s.busy || h.ended || len(s.waits) > 0 || r.Len() > 0 { // it is subscribed to again, and then read
		return
	}
	s.loaded, s.again, s.heard = false, false, never
	h.log.Evict(h.log.Len())
	h.weighLocked()
	s.node.stores.remove(h)
}

// endStored ends the work for a room that has ended: joins that wait find another room of that ID.
func (h *roomHistory) endStored() {
	s := h.stored
	if s == nil {
		return
	}
	h.mu.Lock()
	s.pending = pendingMessages{}
	waits := s.takeWaits()
	h.mu.Unlock()
	s.node.stores.remove(h)
	s.node.resume(waits, nil)
}

// pendingMessages are messages of one room that have come while busy was set. Not safe for concurrent
// use.
type pendingMessages struct {
	list  []pendingMessage
	bytes int
}

// pendingMessage is a message with its epoch.
type pendingMessage struct {
	epoch string
	StoredMessage
}

// The bounds of pendingMessages. Beyond them the store is read.
const (
	maxPending      = 256
	maxPendingBytes = 1 << 20
)

func (p *pendingMessages) len() int { return len(p.list) }

// add adds a copy of a message, or drops all if they are too many: the store has them.
func (p *pendingMessages) add(epoch string, msg *StoredMessage) (dropped bool) {
	if len(p.list) >= maxPending || p.bytes+len(msg.Data) > maxPendingBytes {
		*p = pendingMessages{}
		return true
	}
	m := pendingMessage{epoch, *msg}
	m.Data = append([]byte(nil), msg.Data...)
	p.list = append(p.list, m)
	p.bytes += len(m.Data)
	return false
}

// removeFirst removes the oldest message.
func (p *pendingMessages) removeFirst() {
	p.bytes -= len(p.list[0].Data)
	p.list[0] = pendingMessage{}
	if p.list = p.list[1:]; len(p.list) == 0 {
		p.list = nil
	}
}
