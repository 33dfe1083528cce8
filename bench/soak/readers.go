//go:build linux

package soak

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/client"
)

// readLimit is the longest time until the readers have all messages and are connected.
const readLimit = time.Minute

// readers are clients of package client in a room with a history, over the whole run. Not safe
// for concurrent use.
type readers []*reader

// reader checks that messages and gaps follow one another without a hole. The number in a message is
// its offset. Safe for concurrent use.
type reader struct {
	client *client.Client

	mu sync.Mutex
	// Guarded by mu.
	readCounts
	position client.Position
	open     bool
	ended    int64     // offset of the last message in the epoch before
	since    time.Time // the loss of the connection, until a message or gap arrives
}

// readCounts are the counts of one reader, or of all.
type readCounts struct {
	messages, missing, disordered, gaps, named, epochs, reconnects, closed uint64
	absence                                                                time.Duration // the longest
}

// newReaders connects n readers to the addresses in turn.
func newReaders(ctx context.Context, addresses []string, n int) (all readers, err error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	for i := range n {
		r := new(reader)
		url := "ws://" + addresses[i%len(addresses)] + "/ws"
		if r.client, err = client.New(url, client.WithOnState(r.onState)); err != nil {
			break
		}
		all = append(all, r)
		room := r.client.Room(control.KeptRoom)
		room.On(control.HistoryEvent, r.message)
		room.OnGap(r.gap)
		room.OnLost(func(error) { r.lost() })
		if err = r.client.Connect(ctx); err != nil {
			break
		}
		if _, err = room.Join(ctx); err != nil {
			break
		}
	}
	if err != nil {
		all.stop()
		return nil, fmt.Errorf("readers: %w", err)
	}
	return all, nil
}

func (all readers) stop() {
	for _, r := range all {
		r.client.Close()
		<-r.client.Done()
	}
}

func (r *reader) onState(s client.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case s.Phase == client.Closed:
		r.closed++ // also by stop, when the counts are of no use any more
	case s.Phase != client.Open && r.open:
		r.reconnects++
		if r.since.IsZero() {
			r.since = time.Now()
		}
	}
	r.open = s.Phase == client.Open
}

func (r *reader) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
}

// arrivedLocked ends an absence.
func (r *reader) arrivedLocked() {
	if !r.since.IsZero() {
		r.absence = max(r.absence, time.Since(r.since))
		r.since = time.Time{}
	}
}

func (r *reader) message(n client.Notify) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrivedLocked()
	r.messages++
	var number int64
	next := r.position.Offset + 1
	if err := n.Decode(&number); err != nil || number != n.Position.Offset || number < next {
		r.disordered++
		return
	}
	r.missing += uint64(number - next)
	r.position = n.Position
}

func (r *reader) gap(g client.Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrivedLocked()
	switch {
	case g.Reason == "epoch":
		r.epochs++
		r.ended = r.position.Offset
	case g.Reason == "unknown":
		r.missing += uint64(g.Lost())
	case g.After != r.position.Offset:
		r.disordered++
	default:
		r.gaps++
		r.named += uint64(g.Lost())
	}
	r.position = client.Position{Epoch: g.Epoch, Offset: g.Next - 1}
}

// reach waits until each reader has seen as many new epochs as managers have ended, and is at the
// offset head. Messages that have not arrived within readLimit are missing.
func (all readers) reach(ctx context.Context, epochs uint64, head int64) error {
	reached := func(r *reader) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.epochs >= epochs && r.position.Offset >= head
	}
	limit := time.Now().Add(readLimit)
	for _, r := range all {
		for !reached(r) && time.Now().Before(limit) {
			if err := load.Wait(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
		r.check(epochs, head)
	}
	return nil
}

// check counts the messages that have not arrived.
func (r *reader) check(epochs uint64, head int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.epochs != epochs:
		r.missing++
	case r.position.Offset != head:
		r.missing += uint64(max(1, head-r.position.Offset))
	}
}

// restarted counts the messages up to the offset head that a reader has not had in the epoch before.
func (all readers) restarted(head int64) {
	for _, r := range all {
		r.mu.Lock()
		r.missing += uint64(max(0, head-r.ended))
		r.mu.Unlock()
	}
}

// sum returns the counts of all.
func (all readers) sum() (sum readCounts) {
	for _, r := range all {
		r.mu.Lock()
		c := r.readCounts
		r.mu.Unlock()
		sum.messages += c.messages
		sum.missing += c.missing
		sum.disordered += c.disordered
		sum.gaps += c.gaps
		sum.named += c.named
		sum.epochs += c.epochs
		sum.reconnects += c.reconnects
		sum.closed += c.closed
		sum.absence = max(sum.absence, c.absence)
	}
	return sum
}
