package engine

import (
	"net"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"

	"github.com/qi-realtime/ws/codec"
)

// Owner is what a connection belongs to: it hears of the connection's life in
// this order: one OnOpen, messages, one OnClose. All three run on the
// connection's event loop and must not block.
type Owner interface {
	OnOpen()
	// OnMessage receives a whole text or binary message. The payload is
	// borrowed: it is valid until OnMessage returns.
	OnMessage(op codec.Opcode, payload []byte)
	// OnClose says that the connection has ended, and why.
	OnClose(end CloseInfo)
}

// CloseInfo says how a connection ended.
type CloseInfo struct {
	// Code and Reason are those of the close frame that came first, the peer's
	// or ours; codec.CloseAbnormal if there was none.
	Code   codec.CloseCode
	Reason string
	// Remote tells that the peer closed first.
	Remote bool
	// Err is the network error that ended the connection, if one did.
	Err error
}

// The states of a connection, in order.
const (
	stateHandshake uint32 = iota
	stateOpen
	stateClosing // a close frame is queued, sent or received; no more messages either way
	stateClosed
)

// Conn is one connection, tied to one event loop for life. Embed it by value
// in its Owner and call Init before use; an idle connection then costs this
// struct and what gnet keeps. It must stay within 136 bytes, which a test
// holds.
//
// Methods are safe for concurrent use, except for those that say InLoop.
type Conn struct {
	// Immutable after the connection is attached to its loop.
	owner Owner
	shard *Shard
	gc    gnet.Conn
	addr  net.Addr
	fd    int32

	// Atomic.
	state  atomic.Uint32
	queued atomic.Uint64 // what counts against the bounds: frames<<queuedShift | bytes

	// Loop-confined.
	out        *queue // nil while nothing is pending
	in         codec.Decoder
	next, prev *Conn      // wheel
	end        *CloseInfo // set when closing begins
	deadline   uint32     // wheel, in ticks
	lastRead   uint32     // tick of the last inbound byte
	generation uint32     // of fd, for the writability poller
	scheduled  bool       // is in the wheel
	dirty      bool       // is in shard.dirty
	blocked    bool       // waits for writability
	admitting  bool       // the upgrade request is being decided off the loop
	opened     bool       // OnOpen was called
	doomed     bool       // is in shard.doomed
	gotClose   bool       // the peer's close frame has come
	lingering  bool       // nothing inbound matters; waits for the peer's FIN
}

const (
	queuedShift     = 40
	queuedBytesMask = 1<<queuedShift - 1
)

// Init sets the owner. It must be called before the connection is used.
func (c *Conn) Init(owner Owner) { c.owner = owner }

// Owner returns what Init was given.
func (c *Conn) Owner() Owner { return c.owner }

// Opened reports whether the handshake has succeeded, at whatever time.
func (c *Conn) Opened() bool { return c.state.Load() != stateHandshake }

// Open reports whether messages can be sent and received.
func (c *Conn) Open() bool { return c.state.Load() == stateOpen }

// Closed reports whether the connection is closed or closing.
func (c *Conn) Closed() bool { return c.state.Load() >= stateClosing }

// RemoteAddr returns the peer's address, or nil before the connection is open.
func (c *Conn) RemoteAddr() net.Addr { return c.addr }

// Shard returns the shard that owns the connection, nil before it is open.
func (c *Conn) Shard() *Shard { return c.shard }

// QueuedBytes returns how many bytes of data frames wait to be sent, those on
// their way to the connection's loop included; 0 once the connection has ended.
func (c *Conn) QueuedBytes() int {
	if c.state.Load() == stateClosed {
		return 0 // a send that raced with the end of the loops stays counted
	}
	return int(c.queued.Load() & queuedBytesMask)
}

// Send queues f. It returns ErrClosed once the connection is closing,
// ErrQueueFull when its queue is at a bound, or, for a caller that must not
// wait, when its loop's ring is full.
func (c *Conn) Send(f *Frame, lane Lane) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	onLoop := s.onLoop()
	if onLoop && s.caughtUpInLoop() {
		if !s.enqueueInLoop(c, f, lane) {
			return ErrQueueFull
		}
		return nil
	}
	if !c.reserve(len(f.data)) {
		s.drop()
		return ErrQueueFull
	}
	if err := s.postWait(&sendTask{conn: c, frame: f, lane: lane}); err != nil {
		c.unreserve(1, len(f.data))
		s.drop()
		return err
	}
	return nil
}

// SendPayload encodes payload, which is borrowed, and queues it like Send. A
// reply that an inline handler sends on the connection whose message it
// handles is collected with the others of the same read and costs no
// allocation.
func (c *Conn) SendPayload(op codec.Opcode, payload []byte, lane Lane) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	if s := c.shard; s.onLoop() && s.replyInLoop(c, op, payload) {
		return nil
	}
	return c.Send(NewFrame(op, payload), lane)
}

// Close begins the close handshake behind everything that is queued already.
// Calls after the first have no effect.
func (c *Conn) Close(code codec.CloseCode, reason string) {
	if !c.state.CompareAndSwap(stateOpen, stateClosing) {
		return
	}
	c.shard.Post(&closeTask{conn: c, code: code, reason: reason})
}

// takesDataInLoop reports whether data may still be queued. It differs from
// the state, which a Close called elsewhere changes at once: what was published
// before that call is still to be sent.
func (c *Conn) takesDataInLoop() bool { return c.opened && c.end == nil }

// reserve counts one frame of n bytes against the queue's bounds. A queue that
// is empty takes one message of any size.
func (c *Conn) reserve(n int) bool {
	cfg := &c.shard.eng.cfg
	q := c.queued.Add(1<<queuedShift | uint64(n))
	frames, bytes := q>>queuedShift, int64(q&queuedBytesMask)
	if frames > uint64(cfg.QueueFrames) || (bytes > cfg.QueueBytes && frames > 1) {
		c.unreserve(1, n)
		return false
	}
	return true
}

// unreserve takes back frames and bytes that were reserved.
func (c *Conn) unreserve(frames, bytes int) {
	if frames > 0 {
		c.queued.Add(-(uint64(frames)<<queuedShift | uint64(bytes)))
	}
}

// sendTask carries a frame to the loop of its connection; its room in the
// queue is reserved.
type sendTask struct {
	conn  *Conn
	frame *Frame
	lane  Lane
}

func (t *sendTask) RunInLoop(s *Shard) {
	c := t.conn
	if !c.takesDataInLoop() {
		c.unreserve(1, len(t.frame.data))
		s.drop()
		return
	}
	s.pushInLoop(c, t.frame, t.lane)
}

// closeTask begins the close handshake of a connection whose state is already
// closing.
type closeTask struct {
	conn   *Conn
	code   codec.CloseCode
	reason string
}

func (t *closeTask) RunInLoop(s *Shard) {
	s.beginCloseInLoop(t.conn, CloseInfo{Code: t.code, Reason: t.reason})
}
