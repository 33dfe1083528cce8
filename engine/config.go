// Package engine runs WebSocket connections on gnet's event loops: it accepts
// and enrolls them, decodes what they receive, queues and writes what they
// send, keeps their timers, closes and drains them. It knows no rooms, no
// routes and no JSON: payloads are opaque.
//
// One shard belongs to each event loop. The shard's state is touched by that
// loop alone; everything else comes in as a Task through the shard's inbox.
package engine

import (
	"context"
	"crypto/tls"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Config holds the settings of an Engine. The root package validates them.
type Config struct {
	ListenAddr       string      // "tcp://host:port", "unix:///path", "unix://@name", or "" for no listener
	UnixSocketMode   fs.FileMode // of the Unix socket of ListenAddr; 0 leaves it to the umask
	Loops            int         // event loops
	RingSize         int         // slots of each shard's inbox
	FanOutBatch      int         // tasks that a loop takes from its inbox at once
	QueueFrames      int         // frames that a connection may have queued in LaneNormal
	QueueBytes       int64       // bytes that a connection may have queued in LaneNormal
	HighFrames       int         // the same for LaneHigh
	HighBytes        int64
	QueueBudget      int64            // memory that the queues of all connections whose socket is full may take; 0 is no limit
	Policy           Policy           // what a full queue does, unless the frame says otherwise
	HighMark         float64          // share of a lane's bounds at which a connection whose socket is full is slow
	LowMark          float64          // share at which it is not any more
	HighWaterAge     time.Duration    // age of the oldest frame at which a connection whose socket is full is slow; 0 is never
	UnsentBytes      int              // bytes that the kernel holds unsent for a connection, about; 0 leaves it to the system
	RecvBuffer       int              // bytes of a socket's receive buffer; 0 leaves it to the system
	SendBuffer       int              // the same for its send buffer
	DeflateLevel     int              // of permessage-deflate, 1 to 9
	DeflateThreshold int              // bytes of a message from which on it is compressed
	InflateRatio     int              // bytes that one compressed byte may inflate to, in a message of more than 64 KiB; not above 0 is no limit
	MessageBytes     int64            // largest inbound message; 0 is no limit
	HeldBytes        int64            // bytes that a paused connection may have held where its loop's epoll is unknown; beyond it the connection is closed
	ControlFrames    int              // pings and pongs that a peer may send in a second; 0 is no limit
	MaxDescriptors   int              // number of descriptors in the process at which new connections wait; 0 takes it from RLIMIT_NOFILE
	AdmitPerSecond   float64          // connections that are let in each second; more wait. 0 is no limit
	AdmitBurst       int              // of these, how many at once
	TLS              *tls.Config      // of the listener; nil for a plain one
	TLSHandshakes    int              // handshakes under way at once; more wait
	HeadLimits       codec.HeadLimits // of upgrade requests
	HandshakeTimeout time.Duration
	PingInterval     time.Duration
	InboundBudget    int64         // of what the peers of all connections have waiting here, in bytes; 0 is no limit
	MessageTimeout   time.Duration // from the first byte of a message to its last; 0 is no limit
	WriteTimeout     time.Duration // in which a peer takes nothing of what waits for it; 0 is no limit
	ReadTimeout      time.Duration // silence after which a connection is dead; life.go says how it is measured
	CloseTimeout     time.Duration // how long the close handshake may take
	PublishTimeout   time.Duration // how long a publisher waits for room in a ring
	Logger           *slog.Logger
	Memory           *Memory          // in place of sockets; without ListenAddr and TLS
	Now              func() time.Time // the clock of all timers; nil is time.Now, or the Memory's
	NoReadiness      bool             // for tests: as if the loops' epolls were not found
}

// Decision is what Handler.Admit decides on an upgrade request. Immutable.
type Decision struct {
	Response []byte // the complete HTTP response
	Accepted bool   // Response is the 101 that opens the connection
	Refused  error  // why it is refused, for OnRefused; nil if it is accepted, or answered otherwise
}

// Handler is what the engine asks and tells its user. Safe for concurrent use:
// its methods are called on all loops.
type Handler interface {
	// NewConn returns the connection for a peer that was just accepted, with
	// its owner set. It runs on the event loop.
	NewConn() *Conn
	// AdmitOffLoop tells whether Admit may block on r and so runs on a worker.
	AdmitOffLoop(r *http.Request) bool
	// Admit decides on an upgrade request. r is owned by the callee.
	Admit(c *Conn, r *http.Request) Decision
	// OnRefused tells that an upgrade request is refused because of err: that of Admit,
	// or a *codec.RequestError if it is malformed, comes too late, or the engine stops. r
	// is nil in the second case. It runs on the event loop.
	OnRefused(c *Conn, r *http.Request, err error)
	// Abandon tells that a connection which Admit accepted ended before it
	// was open: OnOpen and OnClose are not called for it.
	Abandon(c *Conn)
	// OnDrop tells that a message was dropped.
	OnDrop(why DropReason)
	// OnSlow tells that a connection's socket is full and its queue has reached
	// the high-water mark or age, or loses messages. OnDrain, in turn, tells that the
	// queue is down to the low-water mark. They run on the connection's loop,
	// within its fan-out: they must not touch any connection's queue.
	OnSlow(c *Conn, queuedBytes int)
	OnDrain(c *Conn)
	// OnReadError and OnWriteError tell that the network failed a connection.
	OnReadError()
	OnWriteError()
	// OnInvalid tells that a peer broke the protocol.
	OnInvalid(c *Conn, err error)
	// Go runs fn on a worker, or not at all if ctx ends before; it reports false
	// if it cannot take it. It must not block.
	Go(ctx context.Context, fn func()) bool
}
