package engine

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/qi-realtime/ws/codec"
)

// Frame is one encoded WebSocket frame and how it is treated while it waits.
// It is shared: it never changes once it is sent, queues refer to it, and the
// collector frees it. Safe for concurrent use.
type Frame struct {
	data    []byte
	key     string        // see Handling
	scope   *Drops        // see Handling
	ttl     time.Duration // see Handling
	expires time.Duration // when it is too late to write the frame, on the engine's clock; 0 is never
	policy  Policy
	lane    Lane
	exempt  bool // does not count against a queue's bounds: no data message
	keep    keep // whether policies drop it

	origin   *Frame                   // has the same bytes, and keeps what they are compressed to; nil if this one does
	variants atomic.Pointer[variants] // the compressed forms
}

// Handling says how a frame is treated while it waits in a connection's queue.
// The zero value is a normal frame under the engine's policy.
type Handling struct {
	Lane   Lane          // not LaneControl
	Policy Policy        // what happens when the queue is full; 0 is Config.Policy
	Key    string        // a newer frame of the same key and scope takes the place of one that waits; "" is none
	TTL    time.Duration // how long the frame may wait, from Stamp or Send on; 0 is for ever
	Scope  *Drops        // counts the frame's drops beside the shard; may be nil
}

// NewFrame encodes payload, which is borrowed, as one unmasked data frame.
func NewFrame(op codec.Opcode, payload []byte, h Handling) *Frame {
	f := &Frame{data: codec.NewFrame(op, payload)}
	f.handle(h)
	return f
}

func (f *Frame) handle(h Handling) {
	f.lane, f.policy, f.key, f.ttl, f.scope = h.Lane, h.Policy, h.Key, h.TTL, h.Scope
}

// In returns a frame of the same bytes with another policy and scope.
func (f *Frame) In(policy Policy, scope *Drops) *Frame {
	g := f.copy()
	g.policy, g.scope = policy, scope
	return g
}

// copy returns a frame of the same bytes and handling, which may be changed.
func (f *Frame) copy() *Frame {
	g := &Frame{
		data: f.data, key: f.key, scope: f.scope, ttl: f.ttl, expires: f.expires,
		policy: f.policy, lane: f.lane, exempt: f.exempt, keep: f.keep, origin: f.origin,
	}
	if g.origin == nil {
		g.origin = f
	}
	return g
}

// Len returns the size of the encoded frame in bytes.
func (f *Frame) Len() int { return len(f.data) }

// frameCost is what a frame takes beside its bytes: itself, and its place in a
// queue, whose slice may be half used.
const frameCost = int(unsafe.Sizeof(Frame{}) + 2*unsafe.Sizeof((*Frame)(nil)))

// cost is the memory that the frame takes if one queue holds it.
func (f *Frame) cost() int { return cap(f.data) + frameCost }

// Stamp starts the frame's time to live. Send does so by itself.
func (e *Engine) Stamp(f *Frame) *Frame {
	if f.ttl == 0 {
		return f
	}
	g := f.copy()
	g.ttl, g.expires = 0, max(1, e.elapsed()+f.ttl)
	return g
}

// Lane is the priority of a frame in a connection's outbound queue. A frame of
// a higher lane overtakes the queued frames of lower ones, never the rest of a
// frame half sent. Each lane has bounds of its own.
type Lane uint8

// The lanes.
const (
	LaneNormal    Lane = iota
	LaneHigh           // overtakes LaneNormal
	LaneControl        // pings and pongs, overtake both; at most one of each waits
	laneCommitted      // the order of these frames is decided: they are compressed with those before them as context
	numLanes
)

// dataLanes are the lanes with bounds: LaneNormal and LaneHigh.
const dataLanes = 2

// sendOrder lists the lanes, the one that is sent first before the others.
var sendOrder = [numLanes]Lane{laneCommitted, LaneControl, LaneHigh, LaneNormal}

// Policy says what happens to a message for a connection whose queue is full
// and whose socket takes nothing.
type Policy uint8

// The policies.
const (
	DropNewest Policy = 1 + iota // the new message is dropped
	DropOldest                   // the messages that wait longest are dropped
	Disconnect                   // the connection is closed with code 1013
)
