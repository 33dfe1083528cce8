package ws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/pool"
)

// appendTimeout bounds an append to the store whose context has no deadline.
const appendTimeout = 10 * time.Second

// publishStored appends a notification to the history of a room in the store. place is the one for its
// offset. Members of this node, too, get it from the store.
func (n *node) publishStored(ctx context.Context, h *roomHistory, notify []byte, place int) (Position, error) {
	s := h.stored
	switch {
	case n.manager.engine.OnLoop():
		return Position{}, ErrOnEventLoop
	case !n.up.Load():
		return Position{}, n.refuse()
	}
	s.used.Store(int64(h.all.clock()))
	bounded, cancel := n.bound(ctx)
	defer cancel()
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	head := cluster.Message{Kind: cluster.Stored, Origin: n.origin} // its payload follows
	buf.B = cluster.AppendStored(head.Append(buf.B[:0]), notify, place)
	err := n.forgets.await(bounded, s.room)
	var at Position
	if err == nil {
		at, err = n.store.Append(bounded, s.room, buf.B, s.keep)
	}
	if err != nil {
		return Position{}, n.appendError(ctx, err)
	}
	n.counts.published.Add(1)
	return at, nil
}

// bound returns a context that ends with ctx and with the node, and at appendTimeout if ctx has no
// deadline.
func (n *node) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	var cancel context.CancelFunc
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, appendTimeout)
	}
	stop := context.AfterFunc(n.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// appendError returns the error of PublishEvent for one of Append.
func (n *node) appendError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case n.manager.stopped() != nil:
		return ErrManagerStopped
	case errors.Is(err, ErrBrokerUnavailable):
		n.counts.refused.Add(1)
		return err
	}
	n.counts.storeErrors.Add(1)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrBrokerUnavailable, err)
	}
	return fmt.Errorf("ws: store a message: %w", err)
}

// forgets are the rooms whose histories are being removed from the store. What comes after a
// DeleteRoom waits for that. Safe for concurrent use.
type forgets struct {
	mu    sync.Mutex
	rooms map[string]chan struct{} // closed when the last one has ended; guarded by mu
}

// beginLocked returns the end of the removal before, or nil, and the function that ends this one.
func (f *forgets) beginLocked(room string) (before <-chan struct{}, end func()) {
	before = f.rooms[room]
	done := make(chan struct{})
	f.rooms[room] = done
	return before, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(done)
		if f.rooms[room] == done {
			delete(f.rooms, room)
		}
	}
}

// await waits until the history of the room is removed, if it is being removed.
func (f *forgets) await(ctx context.Context, room string) error {
	f.mu.Lock()
	done := f.rooms[room]
	f.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitAll waits until all histories that are being removed are.
func (f *forgets) awaitAll(ctx context.Context) {
	f.mu.Lock()
	rooms := slices.Collect(maps.Keys(f.rooms))
	f.mu.Unlock()
	for _, room := range rooms {
		_ = f.await(ctx, room)
	}
}

// forget removes the history of a room from the store.
func (n *node) forget(room string) {
	if n == nil || n.store == nil {
		return
	}
	n.forgets.mu.Lock()
	before, end := n.forgets.beginLocked(room)
	// With the lock, so that the tasks of a room are queued in their order.
	submitted := n.jobs.Submit(&forgetTask{n, room, before, end})
	n.forgets.mu.Unlock()
	if !submitted {
		end()
	}
}

// forgetTask removes the history of a room.
type forgetTask struct {
	node   *node
	room   string
	before <-chan struct{} // nil without an earlier removal
	end    func()
}

// Run implements pool.Task. The tasks begin in their order, so that before ends.
func (t *forgetTask) Run() {
	defer t.end()
	n := t.node
	if t.before != nil {
		<-t.before
	}
	ctx, cancel := n.bound(context.Background())
	defer cancel()
	if err := n.store.Forget(ctx, t.room); err != nil && n.manager.stopped() == nil {
		n.counts.storeErrors.Add(1)
		n.manager.cfg.Logger.Warn("ws: DeleteRoom: the history stays in the store", slog.Any("error", err))
	}
}
