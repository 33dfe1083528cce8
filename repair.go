package ws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/history"
)

// syncJob brings the log of a history up to date with its store, and then appends the messages
// that have come meanwhile. busy is set until it ends.
type syncJob roomHistory

// Run implements pool.Task.
func (j *syncJob) Run() {
	h := (*roomHistory)(j)
	for h.syncOnce() {
	}
}

// syncOnce does one step, and reports whether there is another one now.
func (h *roomHistory) syncOnce() (more bool) {
	h.mu.Lock()
	s := h.stored
	switch {
	case h.ended:
		s.busy = false
	case s.again || !s.loaded:
		s.again = false
		for _, w := range s.waits {
			w.asked = true
		}
		h.mu.Unlock()
		return h.readAll()
	default:
		msg := h.nextPendingLocked()
		switch {
		case msg == nil && s.pending.len() == 0:
			s.busy = false
		case msg == nil:
			skip := s.pending.list[0].Prev
			delay, lost := h.noteHoleLocked()
			h.mu.Unlock()
			return h.fill(skip, delay, lost)
		default:
			h.mu.Unlock()
			err := h.apply(&msg.StoredMessage)
			h.mu.Lock()
			h.appliedLocked(err)
			if err != nil { // checkStores comes back to it
				s.busy, s.pending = false, pendingMessages{}
				break
			}
			more = true
		}
	}
	h.mu.Unlock()
	return more
}

// nextPendingLocked removes the messages that are in the log already, and returns the next one
// if it follows the log.
func (h *roomHistory) nextPendingLocked() *pendingMessage {
	for p := &h.stored.pending; p.len() > 0; p.removeFirst() {
		msg := p.list[0]
		switch head := h.headLocked(); {
		case msg.epoch != h.epoch:
			h.stored.heard = never // checkStores finds out whether there is a new history
		case msg.Offset <= head:
		case msg.Prev <= head:
			p.removeFirst()
			return &msg
		default:
			return nil
		}
	}
	return nil
}

// The times at which the store is read again for a message that it is known to have had: a replica
// may be late.
const (
	firstHoleDelay = 50 * time.Millisecond
	maxHoleTries   = 7
)

// noteHoleLocked notes that messages before the next pending one are missing. lost says that the store
// does not have them, after many tries.
func (h *roomHistory) noteHoleLocked() (delay time.Duration, lost bool) {
	s := h.stored
	if s.tries == 0 || s.hole != h.log.Top() {
		s.hole, s.tries = h.log.Top(), 0
	} else {
		delay = firstHoleDelay << s.tries
	}
	s.again = true
	s.tries++
	if s.tries > maxHoleTries {
		s.tries, s.again = 0, false
		return 0, true
	}
	return delay, false
}

// fill reads the store for a hole, now or after the delay, or gives it up.
func (h *roomHistory) fill(skip uint64, delay time.Duration, lost bool) (more bool) {
	switch {
	case lost:
		err := h.skip(skip)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.appliedLocked(err)
		if err != nil {
			h.stored.busy, h.stored.pending = false, pendingMessages{}
		}
		return err == nil
	case delay > 0:
		time.AfterFunc(delay, func() { h.stored.node.jobs.Submit((*syncJob)(h)) })
		return false
	}
	return true
}

// readAll reads the store, and lets the joins that wait go on.
func (h *roomHistory) readAll() (more bool) {
	s := h.stored
	n := s.node
	err := h.readStore()
	if errors.Is(err, ErrRoomNotFound) {
		err = nil // the next step finds the end
	}
	h.mu.Lock()
	s.read = h.all.clock()
	waits := s.takeWaits()
	switch {
	case err == nil:
		if s.doubts == 0 {
			s.heard = s.read
		}
	case s.loaded: // checkStores comes back to it
		s.busy, s.again, s.heard, s.pending = false, true, never, pendingMessages{}
	default:
		s.busy, s.pending = false, pendingMessages{}
	}
	h.mu.Unlock()
	switch {
	case err == nil:
	case errors.Is(err, ErrBroadcastTimeout):
		n.counts.undelivered.Add(1)
	default:
		n.counts.storeErrors.Add(1)
		err = n.storeError(err)
	}
	n.resume(waits, err)
	return err == nil
}

// storeError returns the error of the caller for one of the store.
func (n *node) storeError(err error) error {
	if stopped := n.manager.stopped(); stopped != nil {
		return stopped
	}
	if errors.Is(err, ErrBrokerUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBrokerUnavailable, err)
}

// readStore appends the messages that the log lacks, or loads it.
func (h *roomHistory) readStore() error {
	s := h.stored
	h.mu.Lock()
	loaded, at := s.loaded, h.positionLocked()
	h.mu.Unlock()
	if !loaded {
		return h.load()
	}
	for {
		page, err := s.node.readPage(s.room, at.Offset, readLimit)
		switch {
		case err != nil:
			return err
		case page.Epoch != at.Epoch, page.Top < at.Offset && h.doubt():
			return h.load()
		case page.Top < at.Offset:
			return nil
		}
		before := at.Offset
		if at.Offset, err = h.repair(&page, at.Offset); err != nil {
			return err
		}
		if at.Offset >= page.Top || at.Offset == before {
			return nil
		}
	}
}

// maxDoubts is the number of reads in a row, a second apart, that have to find an older store before
// the node believes that the store has lost messages: a replica may be late.
const maxDoubts = 3

// doubt notes that the store is older than the log, and reports whether that is certain.
func (h *roomHistory) doubt() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stored.doubts++
	h.stored.heard = never
	return h.stored.doubts >= maxDoubts
}

// repair appends the messages of a page that follow the head, and returns the new head.
func (h *roomHistory) repair(page *HistoryPage, head uint64) (uint64, error) {
	if page.Base <= head && len(page.Messages) == 0 {
		return head, nil
	}
	h.stored.node.counts.repairs.Add(1)
	if page.Base > head {
		if err := h.skip(page.Base); err != nil {
			return head, err
		}
		head = page.Base
	}
	for i := range page.Messages {
		msg := &page.Messages[i]
		if msg.Offset <= head {
			continue
		}
		if err := h.apply(msg); err != nil {
			return head, err
		}
		head = msg.Offset
	}
	return head, nil
}

// readTimeout bounds a read of the store.
const readTimeout = 5 * time.Second

// readLimit is the greatest number of messages of a page.
const readLimit = 1000

func (n *node) readPage(room string, after uint64, limit int) (HistoryPage, error) {
	ctx, cancel := context.WithTimeout(n.ctx, readTimeout)
	defer cancel()
	if err := n.forgets.await(ctx, room); err != nil {
		return HistoryPage{}, err
	}
	page, err := n.store.Read(ctx, room, after, limit)
	if err == nil && page.Epoch == "" {
		err = errNoEpoch
	}
	return page, err
}

var errNoEpoch = errors.New("ws: the store has returned no epoch")

// errEpochs says that the history began anew while it was read.
var errEpochs = errors.New("ws: the history has changed while it was read")

// freshLog is a log that is read from the store. Not safe for concurrent use.
type freshLog struct {
	log   history.Log[*engine.Frame]
	epoch string
	shift uint64
}

// load reads the whole history of the room. Members, who have another one or a part of it, go on at
// its end, behind a gap.
func (h *roomHistory) load() error {
	s := h.stored
	r, _, ok := s.node.storedRoom(s.room)
	if !ok || r.Data().history != h {
		return ErrRoomNotFound
	}
	s.node.counts.loads.Add(1)
	f := &freshLog{log: history.NewLog[*engine.Frame](s.cfg), shift: h.top() + 1}
	for after, more := uint64(0), true; more; {
		page, err := s.node.readPage(s.room, after, readLimit)
		switch {
		case err != nil:
			return err
		case f.epoch == "":
			f.epoch = page.Epoch
		case f.epoch != page.Epoch:
			return errEpochs
		}
		f.add(h, r, &page)
		head := f.log.Top() - f.shift
		more = head < page.Top && head > after
		after = head
	}
	b := &broadcast{manager: s.node.manager, room: r, offset: f.log.Top()}
	s.fresh = f
	defer func() { s.fresh = nil }()
	_, err := s.node.manager.keepAndPost(s.node.ctx, h, &publication{room: r}, b, 0)
	return err
}

func (h *roomHistory) top() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Top()
}

// add appends the messages of a page.
func (f *freshLog) add(h *roomHistory, r *roomEntry, page *HistoryPage) {
	f.log.Skip(page.Base + f.shift)
	for i := range page.Messages {
		msg := &page.Messages[i]
		offset := msg.Offset + f.shift
		if offset <= f.log.Top() {
			continue
		}
		frame := h.stored.node.storedFrame(r, msg, f.log.Top()-f.shift)
		if frame == nil {
			f.log.Skip(offset)
			continue
		}
		f.log.AppendAt(offset, frame, frameMemory(frame), h.all.clock()-msg.Age)
	}
}

// installLocked makes f the log.
func (h *roomHistory) installLocked(f *freshLog) {
	h.log, h.epoch = f.log, f.epoch
	h.before, h.shift = h.shift, f.shift
	h.stored.loaded, h.stored.doubts, h.stored.tries = true, 0, 0
	h.expireLocked(h.all.clock())
}
