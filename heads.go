package ws

import (
	"context"
	"time"
)

const (
	// silence is the time without a message after which a history is compared with its store.
	silence = 5 * time.Second
	// headsInterval is the time between two looks for such histories.
	headsInterval = time.Second
	// headsStep is the greatest number of rooms of one request.
	headsStep = 1000
)

// confirm notes that the subscription to the topics is effective: only from then on can the log of a
// room be read and kept up to date.
func (n *node) confirm(topics []Topic) {
	for _, topic := range topics {
		if topic.Kind == TopicHistory {
			n.read(topic.Name, false)
		}
	}
}

// read reads the history of a room, if the room has one and somebody wants it. With unsure the log is
// compared first, if there is one.
func (n *node) read(room string, unsure bool) {
	_, h, ok := n.storedRoom(room)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch s := h.stored; {
	case h.ended:
	case unsure && s.loaded:
		s.heard = never
	case s.loaded || len(s.waits) > 0 || s.busy:
		h.readAgainLocked()
	}
}

// restore follows a new connection to the broker.
func (n *node) restore() {
	topics := n.interest.ConfirmAll()
	n.listen(topics)
	for _, topic := range topics {
		if topic.Kind == TopicHistory {
			n.read(topic.Name, true)
		}
	}
	n.endSubscribingTo(topics)
	n.doubtAll()
}

// doubtAll has all histories compared with the store.
func (n *node) doubtAll() {
	for _, h := range n.stores.all() {
		h.mu.Lock()
		h.stored.heard = never
		if h.stored.busy { // the read that is under way may be of the time before
			h.stored.again = true
		}
		h.mu.Unlock()
	}
	select {
	case n.checkNow <- struct{}{}:
	default:
	}
}

// refuseWaits ends the joins that wait for a subscription that has failed.
func (n *node) refuseWaits(topics []Topic) {
	for _, topic := range topics {
		if topic.Kind != TopicHistory {
			continue
		}
		if _, h, ok := n.storedRoom(topic.Name); ok {
			h.mu.Lock()
			var waits []*joinWait
			if !h.stored.busy {
				waits = h.stored.takeWaits()
			}
			h.mu.Unlock()
			n.resume(waits, ErrBrokerUnavailable)
		}
	}
}

// coolAll drops the logs of rooms that the node is about to unsubscribe from.
func (n *node) coolAll(topics []Topic) {
	for _, topic := range topics {
		if topic.Kind == TopicHistory {
			if r, h, ok := n.storedRoom(topic.Name); ok {
				h.cool(r)
			}
		}
	}
}

// checkStores compares the histories of rooms that are silent with the store.
func (n *node) checkStores() {
	ticker := time.NewTicker(headsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-n.checkNow:
		case <-n.ending:
			return
		}
		if n.up.Load() {
			n.checkHeads()
		}
	}
}

// head is the top of a log at the time of a request.
type head struct {
	history *roomHistory
	Position
}

// checkHeads does one look.
func (n *node) checkHeads() {
	var heads []head
	var rooms []string
	for _, h := range n.stores.all() {
		if at, silent := h.silent(); silent {
			heads = append(heads, head{h, at})
			rooms = append(rooms, h.stored.room)
		}
	}
	for len(rooms) > 0 {
		step := min(len(rooms), headsStep)
		if !n.compare(heads[:step], rooms[:step]) {
			return
		}
		heads, rooms = heads[step:], rooms[step:]
	}
}

// silent returns the position of a history that has to be compared. It also begins reads that were put
// off, and drops the log of a room that the node is not subscribed to.
func (h *roomHistory) silent() (at Position, silent bool) {
	s := h.stored
	subscribed := s.node.interest.Has(s.topic())
	if r, _, ok := s.node.storedRoom(s.room); ok && !subscribed {
		h.cool(r)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
	case s.busy:
		s.again = s.again || s.loaded && len(s.waits) > 0
	case s.loaded && (s.again || len(s.waits) > 0):
		h.readAgainLocked()
	case s.loaded:
		return h.positionLocked(), h.all.clock()-s.heard >= silence
	}
	return Position{}, false
}

// compare reads the heads of rooms, and has those histories read that differ. It returns false if the
// store does not answer.
func (n *node) compare(heads []head, rooms []string) bool {
	ctx, cancel := context.WithTimeout(n.ctx, readTimeout)
	defer cancel()
	positions, err := n.store.Heads(ctx, rooms)
	if err != nil || len(positions) != len(rooms) {
		n.counts.storeErrors.Add(1)
		return false
	}
	for i := range heads {
		heads[i].history.compare(heads[i].Position, positions[i])
	}
	return true
}

// compare has the store read if its head differs from the top of the log, which was at the given
// position before the request.
func (h *roomHistory) compare(before, store Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	unused := store.Offset == 0 && before.Offset == 0 // so the store may know no epoch
	switch at := h.positionLocked(); {
	case h.ended || !h.stored.loaded || h.stored.busy:
	case !unused && store.Epoch != at.Epoch, store.Offset > at.Offset, store.Offset < before.Offset:
		h.readAgainLocked()
	default:
		h.stored.heard = h.all.clock()
	}
}
