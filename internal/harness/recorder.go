package harness

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Recorder is a Metrics that counts. Safe for concurrent use.
type Recorder struct {
	mu     sync.Mutex
	counts map[string]int // calls, or the last value of a Set method
}

// NewRecorder returns a Recorder without counts.
func NewRecorder() *Recorder { return &Recorder{counts: make(map[string]int)} }

func (r *Recorder) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[key]++
}

// Set sets one count.
func (r *Recorder) Set(key string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[key] = n
}

// Get returns one count.
func (r *Recorder) Get(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[key]
}

func (r *Recorder) took(key string, ns int64) {
	if ns < 0 || ns > int64(time.Minute) {
		key += " of a time that is not in nanoseconds"
	}
	r.add(key)
}

// IncrementConnections counts "connections".
func (r *Recorder) IncrementConnections() { r.add("connections") }

// DecrementConnections counts "disconnections".
func (r *Recorder) DecrementConnections() { r.add("disconnections") }

// SetConnectionCount sets "connected".
func (r *Recorder) SetConnectionCount(n int) { r.Set("connected", n) }

// IncrementMessageCount counts "messages event".
func (r *Recorder) IncrementMessageCount(event string) { r.add("messages " + event) }

// IncrementMessageErrors counts "errors event".
func (r *Recorder) IncrementMessageErrors(event string) { r.add("errors " + event) }

// SetRoomCount sets "rooms".
func (r *Recorder) SetRoomCount(n int) { r.Set("rooms", n) }

// SetRoomMemberCount sets "members".
func (r *Recorder) SetRoomMemberCount(id string, n int) { r.Set("members "+id, n) }

// RecordBroadcastLatency counts "broadcasts".
func (r *Recorder) RecordBroadcastLatency(ns int64) { r.took("broadcasts", ns) }

// IncrementDroppedMessages counts "dropped".
func (r *Recorder) IncrementDroppedMessages() { r.add("dropped") }

// IncrementReadErrors counts "read errors".
func (r *Recorder) IncrementReadErrors() { r.add("read errors") }

// IncrementWriteErrors counts "write errors".
func (r *Recorder) IncrementWriteErrors() { r.add("write errors") }

// IncrementInvalidMessages counts "invalid".
func (r *Recorder) IncrementInvalidMessages() { r.add("invalid") }

// RecordMessageLatency counts "latency".
func (r *Recorder) RecordMessageLatency(event string, ns int64) {
	r.took("latency "+event, ns)
}

// Keys returns the names of all counts.
func (r *Recorder) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.counts))
}
