package redisbroker

import (
	"context"
	"sync"

	"github.com/qi-realtime/ws"
)

// maxWaitingBytes bounds the messages that wait for the next pipeline, beside their number.
const maxWaitingBytes = 4 << 20

// message is a published message that waits or is under way.
type message struct {
	topic ws.Topic
	body  string
}

// outbox holds the messages that wait while a pipeline is under way: they are the next one. Safe
// for concurrent use.
type outbox struct {
	limit int // of waiting messages

	mu      sync.Mutex
	changed *sync.Cond // mu

	// Guarded by mu.
	waiting []message
	bytes   int  // of waiting
	sending bool // a pipeline is under way
	ended   bool
}

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit}
	o.changed = sync.NewCond(&o.mu)
	return o
}

// put adds a message, and waits for space. It returns false after the end.
func (o *outbox) put(m message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.ended && (len(o.waiting) >= o.limit || o.bytes >= maxWaitingBytes) {
		o.changed.Wait()
	}
	if o.ended {
		return false
	}
	o.waiting = append(o.waiting, m)
	o.bytes += len(m.body)
	o.changed.Broadcast()
	return true
}

// next ends the last pipeline and begins the next one, whose messages it returns. It waits for
// them, and returns nil after the end. spare is the memory of an earlier pipeline.
func (o *outbox) next(spare []message) []message {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sending = false
	o.changed.Broadcast()
	for !o.ended && len(o.waiting) == 0 {
		o.changed.Wait()
	}
	if o.ended {
		return nil
	}
	batch := o.waiting
	clear(spare)
	o.waiting, o.bytes, o.sending = spare[:0], 0, true
	return batch
}

// flush waits until all messages are answered, for as long as ctx allows.
func (o *outbox) flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})()
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) > 0 || o.sending {
		if o.ended {
			return ErrDown
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.changed.Wait()
	}
	return nil
}

// end makes all calls return.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.changed.Broadcast()
}

// rest ends the outbox, and returns the messages that were not sent.
func (o *outbox) rest() []message {
	o.end()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting
}
