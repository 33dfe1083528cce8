package engine

import (
	"context"
	"crypto/tls"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Config holds the settings of an Engine. The root package validates them.
type Config struct {
	ListenAddr           string      // "tcp://host:port", "unix:///path", "unix://@name", or "" for no listener
	UnixSocketMode       fs.FileMode // of the Unix socket of ListenAddr; 0 leaves it to the umask
	Loops                int         // event loops
	BroadcastQueueSize   int         // slots of each shard's inbox
	BroadcastBatchSize   int         // tasks that a loop takes from its inbox at once
	MessageQueueSize     int         // frames that a connection may have queued in LaneNormal
	QueueBytes           int64       // bytes that a connection may have queued in LaneNormal
	HighQueueSize        int         // the same for LaneHigh
	HighQueueBytes       int64
	QueueBudget          int64         // memory for the queues of all blocked connections; 0 is no limit
	OverflowPolicy       Policy        // policy of a full queue, unless the frame has its own
	HighWaterMark        float64       // share of a lane's bounds at which a blocked connection is slow
	LowWaterMark         float64       // share below which it is not slow any more
	HighWaterAge         time.Duration // age of the oldest frame at which a blocked connection is slow; 0 is never
	UnsentBytes          int           // approximate unsent bytes of a connection in the kernel; 0 is the system's
	RecvBuffer           int           // bytes of a socket's receive buffer; 0 is the system's default
	SendBuffer           int           // the same for its send buffer
	CompressionLevel     int           // of permessage-deflate, 1 to 9
	CompressionThreshold int           // size from which on a message is compressed, in bytes
	CompressionMaxRatio  int           // inflated bytes for each compressed one, above 64 KiB; at most 0 is no limit
	MessageSizeLimit     int64         // largest inbound message; 0 is no limit
	MailboxBytes         int64         // held bytes at which a paused connection closes if the loop's epoll is unknown
	ControlFrameLimit    int           // pings and pongs that a peer may send in a second; 0 is no limit
	MaxConnections       int           // bound of the clients; here only the size of the table of addresses
	MaxDescriptors       int           // open descriptors at which new connections wait; 0 takes it from RLIMIT_NOFILE
	AdmissionPerSecond   float64       // connections accepted each second; more wait. 0 is no limit
	AdmissionBurst       int           // connections accepted at once within that rate
	AdmissionPerIP       float64       // connections of one address each second; more are refused. 0 is no limit
	AdmissionPerIPBurst  int           // connections of one address at once within that rate
	// AdmissionPerIPConnections bounds the open connections of one address. 0 is no limit.
	AdmissionPerIPConnections int
	TLSConfig                 *tls.Config // of the listener; nil for a plain one
	TLSHandshakes             int         // TLS handshakes that compute at once; more wait
	HeadBytes                 int         // longest upgrade request
	HeadLines                 int         // most lines of an upgrade request
	HandshakeTimeout          time.Duration
	HeartbeatInterval         time.Duration
	InboundBudget             int64         // inbound bytes of all connections that wait here; 0 is no limit
	MessageTimeout            time.Duration // from the first byte of a message to its last; 0 is no limit
	WriteTimeout              time.Duration // time in which a peer reads nothing of its waiting bytes; 0 is no limit
	MaxLifetime               time.Duration // age at which a connection retires; 0 is never
	MaxLifetimeJitter         time.Duration // up to which it retires earlier, at random
	Retirement                Retirement    // at the end of a lifetime
	HeartbeatTimeout          time.Duration // silence after which a connection is dead; see heartbeat.go
	CloseTimeout              time.Duration // duration of the close handshake
	KeepGOMAXPROCS            bool          // Run does not raise GOMAXPROCS
	BatchedWrites             BatchedWrites // whether a loop writes to many sockets in one system call
	BroadcastTimeout          time.Duration // longest wait of a publisher for space in a ring
	LoopStallThreshold        time.Duration // time after which a callback that holds a loop is a stall; 0 is never
	Logger                    *slog.Logger
	Simnet                    *Simnet          // in place of sockets; without ListenAddr and TLS
	Now                       func() time.Time // clock of all timers; nil is time.Now, or the clock of Simnet
	NoReadiness               bool             // for tests: as if the loops' epolls were unknown

	TrustedProxies codec.TrustedProxies // their reports of a client's address are believed
	ProxyProtocol  bool                 // trusted proxies begin with its header; all peers if there are none
}

// BatchedWrites says whether a loop writes to many sockets in one system call.
type BatchedWrites uint8

// The ways to write.
const (
	BatchAuto BatchedWrites = iota // if the kernel can; the default
	BatchOff                       // never
)

// headLimits returns the bounds of an upgrade request.
func (cfg *Config) headLimits() codec.HeadLimits {
	return codec.HeadLimits{Bytes: cfg.HeadBytes, Lines: cfg.HeadLines}
}

// Decision is the result of Handler.Admit for an upgrade request. Immutable.
type Decision struct {
	Response []byte // the complete HTTP response
	Accepted bool   // Response is the 101 that opens the connection
	Refused  error  // cause of a refusal, for OnRefused; nil if accepted, or answered otherwise

	// Placement, if it is not empty, is a key: connections with the same key
	// share a loop. It has no effect if Admit ran on the event loop.
	Placement string

	// Began is the start of the handshake, for Enroll.
	Began time.Time
}

// Handler makes connections and decides on upgrade requests. Safe for concurrent
// use: all loops call its methods.
type Handler interface {
	// NewConn returns the connection for a peer that was just accepted. It runs
	// on the event loop.
	NewConn() *Conn
	// Owner returns the owner of c, in which c is embedded: a Conn holds no reference
	// to it, which would take 16 bytes of each idle connection.
	Owner(c *Conn) Owner
	// TurnAway reports that the limits of its address refuse a peer, before anything
	// is read from it: err is ErrAddressRate or ErrAddressFull. If it returns true, the
	// peer's request is read nevertheless, and Screen refuses it. It runs on the event
	// loop.
	TurnAway(addr netip.Addr, err error) (polite bool)
	// Screen looks at an upgrade request before Admit, on the event loop. It returns a
	// decision with a Response if it refuses r, as it must if turnedAway is true,
	// because TurnAway wanted the request. Otherwise it reports whether Admit may block
	// on r and so runs on a worker.
	Screen(r *http.Request, turnedAway bool) (refused Decision, offLoop bool)
	// Admit decides on an upgrade request. On a worker r is owned by the
	// callee; on the loop r is borrowed, its strings are not, and it has no
	// RemoteAddr.
	Admit(c *Conn, r *http.Request) Decision
	// Abandon reports that a connection which Admit accepted ended before it
	// was open: OnOpen and OnClose are not called for it.
	Abandon(c *Conn)
	// Go runs fn on a worker, or not at all if ctx ends before. It reports
	// false if it cannot take fn. It must not block.
	Go(ctx context.Context, fn func()) bool
}

// Observer receives the events of the engine that need no decision. Its methods must not
// block, but OnStall may. Safe for concurrent use: all loops call them.
type Observer interface {
	// OnRefused reports that an upgrade request is refused because of err: the
	// error of Admit, or a *codec.RequestError if the request is malformed or
	// too late, or the engine stops. r is nil unless Admit refused it, and
	// borrowed. It runs on the event loop.
	OnRefused(c *Conn, r *http.Request, err error)
	// OnDrop reports a dropped message.
	OnDrop(why DropReason)
	// OnSlow reports that a blocked connection's queue has reached the
	// high-water mark or age, or loses messages. OnDrain reports later that the
	// queue is down to the low-water mark. They run on the connection's loop,
	// within its fan-out: they must not touch any connection's queue.
	OnSlow(c *Conn, queuedBytes int)
	OnDrain(c *Conn)
	// OnRoundTrip reports the time from a ping to its pong. It runs on the connection's loop.
	OnRoundTrip(c *Conn, d time.Duration)
	// OnReadError and OnWriteError report that the network failed a connection.
	OnReadError()
	OnWriteError()
	// OnStall reports a stall, once. It runs on a goroutine of its own, one call at a
	// time, and may block. Run waits for it.
	OnStall(Stall)
	// OnInvalid reports that a peer broke the protocol.
	OnInvalid(c *Conn, err error)
}
