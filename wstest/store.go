package wstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/qi-realtime/ws"
)

// store holds the histories of rooms. Guarded by Hub.mu.
type store struct {
	rooms  map[string]*storedRoom
	epoch  uint64 // number of the history that began last
	shared bool   // the offsets are of one sequence for all rooms
	last   uint64 // last offset of that sequence
	reads  int
}

// storedRoom is the history of a room.
type storedRoom struct {
	epoch    string
	base     uint64 // messages up to this offset are not kept
	top      uint64
	messages []storedMessage
}

type storedMessage struct {
	offset uint64
	at     time.Time
	data   []byte
}

// readStep is the greatest number of messages of one answer to Read.
const readStep = 64

// ErrAppend is the error of an Append after FailAppend.
var ErrAppend = errors.New("wstest: the message is possibly not stored")

var _ ws.HistoryBroker = (*Link)(nil)

// roomLocked returns the history of a room, and begins a missing one.
func (s *store) roomLocked(name string) *storedRoom {
	if r := s.rooms[name]; r != nil {
		return r
	}
	if s.rooms == nil {
		s.rooms = make(map[string]*storedRoom)
	}
	s.epoch++
	r := &storedRoom{epoch: "epoch" + strconv.FormatUint(s.epoch, 10)}
	s.rooms[name] = r
	return r
}

// ShareOffsets lets the messages of all rooms take their offsets from one sequence, so that the offsets
// of a room have holes. Call it before the first Append.
func (h *Hub) ShareOffsets() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store.shared = true
}

// Wipe loses all histories, as a server without its disk. The next ones have other epochs.
func (h *Hub) Wipe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store.rooms = nil
}

// Reads returns the number of calls of Read that have succeeded.
func (h *Hub) Reads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.reads
}

// Drop drops the oldest n messages of the history of a room.
func (h *Hub) Drop(room string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.store.roomLocked(room)
	r.drop(min(n, len(r.messages)))
}

func (r *storedRoom) drop(n int) {
	if n > 0 {
		r.base = r.messages[n-1].offset
		r.messages = r.messages[n:]
	}
}

// LoseStored loses the next n messages of histories to the node, and does not report it.
func (l *Link) LoseStored(n int) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.loseStored = n
}

// FailAppend lets the next n calls of Append return ErrAppend. With stored the messages are stored all
// the same.
func (l *Link) FailAppend(n int, stored bool) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.failAppend, l.failStored = n, stored
}

// HoldReads makes Read wait until the function that it returns is called.
func (l *Link) HoldReads() (release func()) {
	held := make(chan struct{})
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.held = held
	return func() {
		l.hub.mu.Lock()
		defer l.hub.mu.Unlock()
		if l.held == held {
			l.held = nil
			close(held)
		}
	}
}

// lockForStore locks hub.mu, unless the link is down or ctx has ended.
func (l *Link) lockForStore(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.hub.mu.Lock()
	if l.conn != l.opened || l.closed || l.dead {
		l.hub.mu.Unlock()
		return fmt.Errorf("%w: %w", ws.ErrBrokerUnavailable, ErrCut)
	}
	return nil
}

// Append implements ws.HistoryBroker.
func (l *Link) Append(ctx context.Context, room string, msg []byte, keep ws.History) (ws.Position, error) {
	if err := l.lockForStore(ctx); err != nil {
		return ws.Position{}, err
	}
	defer l.hub.mu.Unlock()
	failed := l.failAppend > 0
	if failed {
		l.failAppend--
		if !l.failStored {
			return ws.Position{}, ErrAppend
		}
	}
	s := &l.hub.store
	r := s.roomLocked(room)
	m := ws.StoredMessage{Offset: r.top + 1, Prev: r.top, Data: bytes.Clone(msg)}
	if s.shared {
		s.last++
		m.Offset = s.last
	}
	r.top = m.Offset
	r.messages = append(r.messages, storedMessage{m.Offset, time.Now(), m.Data})
	r.drop(len(r.messages) - keep.Size)
	l.hub.deliverStoredLocked(room, r.epoch, m)
	if failed {
		return ws.Position{}, ErrAppend
	}
	return ws.Position{Epoch: r.epoch, Offset: r.top}, nil
}

func (h *Hub) deliverStoredLocked(room, epoch string, m ws.StoredMessage) {
	topic := ws.Topic{Kind: ws.TopicHistory, Name: room}
	for l := range h.links {
		_, wants := l.topics[topic]
		switch {
		case !wants || l.dead:
		case l.loseStored > 0:
			l.loseStored--
		case l.lose > 0:
			l.lose--
			l.addLocked(func() { l.node.Lost([]ws.Topic{topic}) })
		default:
			l.addLocked(func() { l.node.ReceiveStored(room, epoch, m) })
		}
	}
}

// Read implements ws.HistoryBroker.
func (l *Link) Read(ctx context.Context, room string, after uint64, limit int) (ws.HistoryPage, error) {
	if err := l.awaitReads(ctx); err != nil {
		return ws.HistoryPage{}, err
	}
	defer l.hub.mu.Unlock()
	l.hub.store.reads++
	r := l.hub.store.roomLocked(room)
	page := ws.HistoryPage{Epoch: r.epoch, Top: r.top, Base: max(after, r.base)}
	for _, m := range r.messages {
		if m.offset > after && len(page.Messages) < min(limit, readStep) {
			page.Messages = append(page.Messages, ws.StoredMessage{
				Offset: m.offset, Age: time.Since(m.at), Data: m.data,
			})
		}
	}
	if len(page.Messages) == 0 {
		page.Base = r.top
	}
	return page, nil
}

// awaitReads is lockForStore at the end of HoldReads.
func (l *Link) awaitReads(ctx context.Context) error {
	for {
		if err := l.lockForStore(ctx); err != nil {
			return err
		}
		held := l.held
		if held == nil {
			return nil
		}
		l.hub.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Heads implements ws.HistoryBroker.
func (l *Link) Heads(ctx context.Context, rooms []string) ([]ws.Position, error) {
	if err := l.lockForStore(ctx); err != nil {
		return nil, err
	}
	defer l.hub.mu.Unlock()
	heads := make([]ws.Position, len(rooms))
	for i, name := range rooms {
		if r := l.hub.store.rooms[name]; r != nil {
			heads[i] = ws.Position{Epoch: r.epoch, Offset: r.top}
		}
	}
	return heads, nil
}

// Forget implements ws.HistoryBroker.
func (l *Link) Forget(ctx context.Context, room string) error {
	if err := l.lockForStore(ctx); err != nil {
		return err
	}
	defer l.hub.mu.Unlock()
	delete(l.hub.store.rooms, room)
	return nil
}
