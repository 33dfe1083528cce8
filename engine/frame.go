package engine

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/qi-realtime/ws/codec"
)

// Frame is one encoded WebSocket frame with its handling while it waits. It is
// shared: it does not change after it is sent, queues refer to it, and the
// collector frees it. Safe for concurrent use.
type Frame struct {
	data    []byte
	key     string        // see Handling
	scope   *Drops        // see Handling
	ttl     time.Duration // see Handling
	expires time.Duration // deadline of the write, on the engine's clock; 0 is none
	policy  Policy
	lane    Lane
	exempt  bool // does not count against a queue's bounds: not a data message
	keep    keep // whether policies may drop it

	origin   *Frame                   // the frame of the same bytes that keeps the compressed forms; nil for itself
	variants atomic.Pointer[variants] // the compressed forms
}

// Handling is the treatment of a frame in a connection's queue. The zero value
// is a normal frame under the engine's policy.
type Handling struct {
	Lane   Lane          // not LaneControl
	Policy Policy        // applies when the queue is full; 0 is Config.OverflowPolicy
	Key    string        // a newer frame of the same key and scope replaces a queued one; "" is none
	TTL    time.Duration // longest wait, from Stamp or Send on; 0 has no end
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
	if h.Policy == CatchUp {
		f.keep = keepHistory
	}
}

// Overwrite writes b over the payload, n bytes before its end. f has not been sent yet.
func (f *Frame) Overwrite(n int, b []byte) { copy(f.data[len(f.data)-n:], b) }

// Memory returns the memory of the frame and its compressed forms, in bytes, without its places
// in queues.
func (f *Frame) Memory() int {
	n := cap(f.data) + int(unsafe.Sizeof(*f))
	v := f.variants.Load()
	if v == nil {
		return n
	}
	n += int(unsafe.Sizeof(*v))
	for i := range v.frames {
		if g := v.frames[i].Load(); g != nil && g != f {
			n += cap(g.data) + int(unsafe.Sizeof(*g))
		}
	}
	return n
}

// HasVariants reports whether the frame may have compressed forms.
func (f *Frame) HasVariants() bool { return f.variants.Load() != nil }

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

// Payload returns the opcode and the payload, which is shared. NewFrame makes an equal
// frame from them, also on another node.
func (f *Frame) Payload() (op codec.Opcode, payload []byte) { return codec.SplitFrame(f.data) }

// Len returns the size of the encoded frame in bytes.
func (f *Frame) Len() int { return len(f.data) }

// frameCost is the memory of a frame without its bytes: the Frame and its place
// in a queue, whose slice may be half used.
const frameCost = int(unsafe.Sizeof(Frame{}) + 2*unsafe.Sizeof((*Frame)(nil)))

// cost returns the memory that the frame takes in one queue.
func (f *Frame) cost() int { return cap(f.data) + frameCost }

// Stamp starts the frame's time to live. Send calls it.
func (e *Engine) Stamp(f *Frame) *Frame {
	if f.ttl == 0 {
		return f
	}
	g := f.copy()
	g.ttl, g.expires = 0, max(1, e.elapsed()+f.ttl)
	return g
}

// Lane is the priority of a frame in a connection's outbound queue. A frame of
// a higher lane overtakes the queued frames of lower lanes, but not the rest of
// a partly sent frame. Each lane has its own bounds.
type Lane uint8

// The lanes.
const (
	LaneNormal    Lane = iota
	LaneHigh           // overtakes LaneNormal
	LaneControl        // pings and pongs; overtakes both; holds at most one of each
	laneCommitted      // frames in their final order, each compressed with those before as context
	numLanes
)

// dataLanes are the lanes with bounds: LaneNormal and LaneHigh.
const dataLanes = 2

// sendOrder lists the lanes in the order of sending.
var sendOrder = [numLanes]Lane{laneCommitted, LaneControl, LaneHigh, LaneNormal}

// Policy decides about a message for a blocked connection whose queue is full.
type Policy uint8

// The policies.
const (
	DropNewest Policy = 1 + iota // the new message is dropped
	DropOldest                   // the oldest messages are dropped
	Disconnect                   // the connection is closed with code 1013
	CatchUp                      // the message is not queued and not counted: the caller has it in store
)
