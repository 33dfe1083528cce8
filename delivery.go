package ws

import (
	"context"
	"sync/atomic"
)

// Delivery is the report on one published message. The event loops fan out
// after Publish has returned, each to the members that it owns; the report is
// complete when the last of them has, in general within a millisecond. It says
// queued messages, not arrived ones: a slow client may lose later what was
// queued for it, which Stats and Room.Drops count. What a client loses in the step
// that queues the message is not queued but dropped: the QueueBudget may take this
// very message, or close its client. Safe for concurrent use.
type Delivery struct {
	report *deliveryReport // nil for no message
}

// deliveryReport is shared with the event loops.
type deliveryReport struct {
	queued, dropped atomic.Int64
	done            chan struct{}
}

// closed is the Done of a report on nothing.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done is closed when the report is complete, or no event loop will add to it
// any more because the manager has stopped.
func (d Delivery) Done() <-chan struct{} {
	if d.report == nil {
		return closed
	}
	return d.report.done
}

// Wait waits until the report is complete, or returns the error of ctx if that
// ends first. It must not be called on an event loop, by an inline handler.
func (d Delivery) Wait(ctx context.Context) error {
	select {
	case <-d.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queued returns for how many members the message was queued so far, those
// included whose older message of the same ConflateKey it replaced.
func (d Delivery) Queued() int {
	if d.report == nil {
		return 0
	}
	return int(d.report.queued.Load())
}

// Dropped returns for how many members it was dropped so far: their queue was
// full, all queues together were over the budget, or they are being closed.
func (d Delivery) Dropped() int {
	if d.report == nil {
		return 0
	}
	return int(d.report.dropped.Load())
}
