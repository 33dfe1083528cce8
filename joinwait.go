package ws

import (
	"errors"
	"sync"
	"time"
)

// joinWait is a join that waits until the node has read the history of the room from the store, or until
// it is subscribed to the room, see subscribing.
type joinWait struct {
	// Immutable.
	node    *node
	history *roomHistory // nil if it waits for the subscription
	client  *Client
	room    string
	timer   *time.Timer // ends the wait
	done    chan error  // holds the result if entering.later is nil

	// A copy, so that a join that does not wait allocates none. Only its reads change: the goroutine
	// that has taken the wait counts them.
	entering entering

	asked bool // the read that is under way began while it waited; guarded by roomHistory.mu

	left bool // the client has left the room, and does not join any more; guarded by Client.mu
}

// errWaits says that a join waits, see entering.wait.
var errWaits = errors.New("ws: the join waits")

// joinTimeout bounds the wait of a join for the store.
const joinTimeout = 10 * time.Second

// maxReads is the number of reads of the store, made while a join waits, that have to lack
// the join's offset before the node believes that the store never had it: a replica may be late.
const maxReads = 3

// waitsLocked reports whether a join has to wait for the store: the log is not loaded, or the client
// may know of newer messages, or of a newer epoch, than the log.
func (h *roomHistory) waitsLocked(e *entering) bool {
	s, p := h.stored, e.since.Position
	switch {
	case s == nil || h.ended:
		return false
	case !s.loaded:
		return true
	case p == (Position{}):
		return false
	case p.Epoch != h.epoch:
		return e.reads == 0
	}
	return p.Offset > h.headLocked() && e.reads < maxReads
}

// waitLocked lets the join of c wait. Client.mu is held, too. The error is errWaits if it waits.
func (h *roomHistory) waitLocked(c *Client, e *entering) error {
	s, n := h.stored, h.stored.node
	now := h.all.clock()
	if e.waitsUntil == 0 {
		e.waitsUntil = now + joinTimeout
	}
	switch {
	case !n.up.Load(), now >= e.waitsUntil:
		return n.refuse()
	case e.later == nil && n.manager.engine.OnLoop():
		return ErrOnEventLoop
	}
	if err := n.mayWait(c, s.room); err != nil {
		return err
	}
	effective := n.interest.Add(s.topic())
	e.wait = nil // the one before
	w := &joinWait{node: n, history: h, client: c, room: s.room, entering: *e, done: make(chan error, 1)}
	w.entering.wait = w
	w.note()
	w.timer = time.AfterFunc(e.waitsUntil-now, w.expire)
	s.waits[c], e.wait = w, w
	n.stores.add(h)
	switch {
	case s.busy: // the read that is under way serves it, or the next one
	case !s.loaded && effective, s.loaded && now-s.read >= minReadInterval:
		h.readAgainLocked()
	}
	return errWaits
}

// joinWaits are the joins of each client that wait, by room.
type joinWaits struct {
	sync.Mutex
	of map[*Client]map[string]*joinWait // guarded by the mutex
}

// mayWait returns an error if c already waits for the room, or is in as many rooms as it may be, with
// those that it waits for. Client.mu is held.
func (n *node) mayWait(c *Client, id string) error {
	_, rooms := c.roomLocked("")
	n.waits.Lock()
	defer n.waits.Unlock()
	of := n.waits.of[c]
	if of[id] != nil {
		return ErrAlreadyInRoom
	}
	if most := n.manager.cfg.Room.MaxRoomsPerClient; most > 0 && rooms+len(of) >= most {
		return ErrTooManyRooms
	}
	return nil
}

// note notes the wait, until the join goes on or has failed.
func (w *joinWait) note() {
	waits := &w.node.waits
	waits.Lock()
	defer waits.Unlock()
	of := waits.of[w.client]
	if of == nil {
		of = make(map[string]*joinWait)
		waits.of[w.client] = of
	}
	of[w.room] = w
}

// unnote is the reverse of note. Another wait of the client for the room stays.
func (w *joinWait) unnote() {
	waits := &w.node.waits
	waits.Lock()
	defer waits.Unlock()
	if of := waits.of[w.client]; of[w.room] == w {
		if delete(of, w.room); len(of) == 0 {
			delete(waits.of, w.client)
		}
	}
}

// goOnLocked ends the wait of a join that goes on, with Client.mu held. It returns errLeft if the client
// has left the room meanwhile.
func (w *joinWait) goOnLocked() error {
	if w == nil {
		return nil
	}
	w.unnote()
	if w.left {
		return errLeft
	}
	return nil
}

// topic returns the topic whose interest the wait holds.
func (w *joinWait) topic() Topic {
	if w.history == nil {
		return Topic{TopicRoom, w.room}
	}
	return w.history.stored.topic()
}

// release ends what the wait holds, when the client has joined, or will not.
func (w *joinWait) release() {
	w.unnote()
	w.node.interest.Remove(w.topic())
}

// takeWaits removes all joins that wait, after a read, if one was under way. roomHistory.mu is held.
func (s *storedHistory) takeWaits() (waits []*joinWait) {
	for c, w := range s.waits {
		if w.asked {
			w.entering.reads++
		}
		waits = append(waits, w)
		delete(s.waits, c)
	}
	return waits
}

// expire ends a wait that was too long.
func (w *joinWait) expire() {
	switch {
	case !w.take():
	case w.history == nil:
		w.node.resume([]*joinWait{w}, nil) // without the subscription
	default:
		w.end(w.node.refuse())
	}
}

// take removes the wait, and reports whether it was there.
func (w *joinWait) take() bool {
	h := w.history
	if h == nil {
		return w.node.subscribing.take(w)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stored.waits[w.client] != w {
		return false
	}
	delete(h.stored.waits, w.client)
	return true
}

// resume lets joins go on that were removed from the waits, or ends them with an error.
func (n *node) resume(waits []*joinWait, err error) {
	for _, w := range waits {
		if !n.joins.Submit(&resumeTask{w, err}) {
			(&resumeTask{w, ErrManagerStopped}).Run()
		}
	}
}

// joinWorkers is the number of goroutines that let joins go on. They never wait for the store.
const joinWorkers = 8

// resumeTask lets a join go on.
type resumeTask struct {
	wait *joinWait
	err  error
}

// Run implements pool.Task.
func (t *resumeTask) Run() {
	t.wait.timer.Stop()
	t.wait.end(t.err)
}

// end ends the wait: the client tries again, or gets the error.
func (w *joinWait) end(err error) {
	if w.entering.later == nil {
		w.done <- err
		return
	}
	if err == nil {
		_, err = w.client.joinRoom(w.room, &w.entering)
	}
	w.release()
	if err != nil && !errors.Is(err, errWaits) {
		w.entering.later(err)
		w.client.manager.endUnusedRoom(w.room)
	}
}

// wait returns when the join can go on.
func (w *joinWait) wait() error {
	select {
	case err := <-w.done:
		return err
	case <-w.client.manager.stopping:
	}
	if w.take() {
		w.timer.Stop()
		return ErrManagerStopped
	}
	return <-w.done
}

// cancelWait ends the wait of a client that leaves the room before it has joined. A join that goes on
// at the same time has made the client a member before, or finds that it has left.
func (c *Client) cancelWait(id string) {
	n := c.manager.node
	if n == nil {
		return
	}
	c.mu.Lock()
	n.waits.Lock()
	w := n.waits.of[c][id]
	n.waits.Unlock()
	taken := false
	if w != nil {
		w.left = true
		w.unnote()
		taken = w.take()
	}
	c.mu.Unlock()
	if taken {
		n.resume([]*joinWait{w}, errLeft)
	}
}

// errLeft answers a join that was overtaken by the leave.
var errLeft = NewClientError(409, "left the room")

// endUnusedRoom is endUnused for the room of that ID, if there is one.
func (m *Manager) endUnusedRoom(id string) {
	if r, ok := m.rooms.Get(id); ok && m.endUnused(r) {
		m.changed(roomCount, "")
	}
}
