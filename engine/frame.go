package engine

import "github.com/qi-realtime/ws/codec"

// Frame is one encoded WebSocket frame. Its bytes are shared: they never change
// after encoding, queues refer to them, and the collector frees them.
// Safe for concurrent use.
type Frame struct {
	data   []byte
	exempt bool // does not count against a queue's bounds: no data message
}

// NewFrame encodes payload, which is borrowed, as one unmasked data frame.
func NewFrame(op codec.Opcode, payload []byte) *Frame {
	return &Frame{data: codec.NewFrame(op, payload)}
}

// Len returns the size of the encoded frame in bytes.
func (f *Frame) Len() int { return len(f.data) }

// Lane is the priority of a frame in a connection's outbound queue. A frame of
// a higher lane overtakes the queued frames of lower ones, never the rest of a
// frame half sent.
type Lane uint8

// The lanes, highest first.
const (
	LaneControl Lane = iota // pings and pongs; exempt from the queue's bounds
	LaneHigh
	LaneNormal
	numLanes
)
