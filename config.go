package ws

import (
	"crypto/tls"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/trace"
	"time"

	"github.com/qi-realtime/ws/engine"
)

// OverflowPolicy decides on a message for a blocked client: its queue and its socket are
// full. The queue of a client that reads is written as soon as it is full. No policy drops
// the answer to a client's own request (see Handle): a client that does not read its answers
// waits with its requests.
type OverflowPolicy uint8

// The overflow policies.
const (
	// DropNewest drops the new message. A direct sender reads ErrChannelFull.
	DropNewest = OverflowPolicy(engine.DropNewest)
	// DropOldest drops the messages that wait longest, until the new one fits.
	DropOldest = OverflowPolicy(engine.DropOldest)
	// Disconnect drops the queue and closes the client with code 1013, "try
	// again later".
	Disconnect = OverflowPolicy(engine.Disconnect)
	// CatchUp is for rooms with a history (WithHistory), and their default: the client reads the
	// message from the history later. It loses nothing that is kept until then, and costs a cursor
	// in place of a queue.
	CatchUp = OverflowPolicy(engine.CatchUp)
)

// Config holds every setting of a Manager. Start from DefaultConfig: zero and negative values
// are refused, except for fields whose comment gives zero a meaning. NewManager copies it.
type Config struct {
	// MaxConnections is how many clients may be connected; one more is refused
	// with HTTP 503 and ErrTooManyConnections. Default 10,000. Keep it below
	// the descriptor limit (ulimit -n).
	MaxConnections int
	// HeartbeatInterval is the time between pings to each client. A client that
	// has not answered is pinged more often: at every eighth of HeartbeatTimeout,
	// if that is shorter. Default 30 s.
	HeartbeatInterval time.Duration
	// HeartbeatTimeout closes a client that shows no sign of life for this time. It
	// must exceed the interval. Default 90 s.
	//
	// Signs of life are bytes that the client sends, and bytes that it takes: a
	// slow download keeps a client alive, although it finds the pings behind the
	// data too late. (On systems other than Linux, it counts only when a full
	// socket becomes writable again.) Only time in which the event loop was there
	// to read counts as silence. A pause of the server (a stopped process, a
	// suspended machine, an inline handler that does not return) adds an eighth of
	// HeartbeatTimeout at most.
	//
	// A client that is gone or hangs is closed at most an eighth of
	// HeartbeatTimeout late. One that hangs while its kernel still takes the bytes that are
	// sent to it counts as silent when its receive buffer is full.
	HeartbeatTimeout time.Duration
	// MaxLifetime bounds the life of a connection; see WithMaxLifetime. 0, the default, is no
	// limit.
	MaxLifetime time.Duration
	// MaxLifetimeJitter is the longest time by which a connection ends before MaxLifetime, at
	// random. Default 0.
	MaxLifetimeJitter time.Duration
	// MessageSizeLimit bounds an inbound message, assembled from its fragments,
	// in bytes; beyond it the client is closed with 1009. Default 512 KiB.
	MessageSizeLimit int64
	// MessageQueueSize bounds the messages queued for one client. Default 256.
	MessageQueueSize int
	// QueueBytes bounds the bytes queued for one client, those of a message half
	// sent included; an empty queue takes one message of any size. Default 1 MiB.
	QueueBytes int64
	// HighQueueSize and HighQueueBytes bound the messages of high priority
	// (SendBytesHigh), which have a queue of their own. Default 64 messages and
	// 256 KiB.
	HighQueueSize  int
	HighQueueBytes int64
	// QueueBudget bounds the memory, in bytes, of all that is queued for all clients
	// whose sockets are full. At seven eighths of it those with the most queued
	// begin to lose, by the OverflowPolicy, and it is not exceeded; clients that
	// read are not concerned. A message that waits in several queues counts in
	// each, with about 100 bytes beside its own. 0, the default, is no limit. It
	// should hold several of the largest messages: a client is cut off if the
	// budget can only be kept by dropping a message that is half sent to it.
	QueueBudget int64
	// OverflowPolicy decides on messages for a full queue. 0 is DropNewest, the default.
	OverflowPolicy OverflowPolicy
	// HighWaterMark and LowWaterMark are shares of the bounds of a client's
	// queue, between 0 and 1, whichever bound is nearer. A client whose socket is
	// full becomes slow when its queue reaches the high mark, or loses a message,
	// or by HighWaterAge; it is slow no more when its queue is written down below
	// the low mark and nothing in it has waited for a quarter of HighWaterAge.
	// Default 0.5 and 0.1.
	HighWaterMark float64
	LowWaterMark  float64
	// HighWaterAge makes a client slow when its oldest message has waited this long
	// for its full socket, however few wait with it. A message that replaces
	// another by its ConflateKey has that one's age: a client whose queue stays
	// short because of that is seen, too. It is looked at with each tick of the
	// timers, at least four times a second. Default 2 s; 0 is never.
	HighWaterAge time.Duration
	// UnsentBytes bounds, approximately, the bytes of a client that the kernel holds
	// and has not begun to send (TCP_NOTSENT_LOWAT). Further messages stay in the
	// client's queue, where ConflateKey, TTL and the OverflowPolicy act on them; the
	// kernel's send buffer takes up to 4 MiB of messages, on which nothing acts. The
	// bound may be exceeded by one segment, up to 64 KiB, and by the rest of a message
	// half sent. It does not bound bytes on their way. 0 leaves it to the system
	// (net.ipv4.tcp_notsent_lowat, which has no limit unless changed). Default
	// 64 KiB.
	UnsentBytes int
	// RecvBuffer and SendBuffer are the sizes in bytes of each socket's buffers
	// (SO_RCVBUF and SO_SNDBUF; Linux doubles them, for its own use). Connections
	// of ListenAddr negotiate their window with it, those of HandleUpgrade get them
	// later. A size ends the system's own adjustment. 0, the default, leaves it
	// to the system.
	RecvBuffer int
	SendBuffer int
	// HistoryBudget bounds the memory, in bytes, of the histories of all rooms together; see
	// WithHistory. Beyond it the oldest messages of some rooms are dropped, room by room in turn,
	// and counted in Stats.HistoryEvicted: a member that needed them is told of a gap. The last
	// message may exceed it. 0 is no limit. Default 1 GiB.
	HistoryBudget int64
	// OnSlow and OnDrain, if set, report that a client has become slow, with the
	// bytes then queued for it, and that it is slow no more. They run on a worker
	// and may block. The calls for one client come one after the other and
	// alternate; an episode that ends before OnSlow could be called is left out,
	// and a client that is closed while slow gets no OnDrain.
	OnSlow  func(c *Client, queuedBytes int)
	OnDrain func(c *Client)
	// InboundBudget bounds the bytes that the messages of all clients together take
	// while they wait here, unfinished, undecoded or for a worker. Beyond it clients
	// wait: first those whose unfinished messages take most, and those with more than
	// one message for a worker. A few take turns, so that messages are finished, and
	// MessageTimeout ends those that never are. The budget may be exceeded by an
	// eighth, by 16 KiB for each client, and by four messages for each event loop.
	// Upgrade requests do not count, because HandshakeTimeout ends them. Default 0, no
	// limit: MaxConnections times MessageSizeLimit and MailboxBytes.
	InboundBudget int64
	// MessageTimeout bounds the time from the first byte of a message to its last:
	// a client that takes longer is closed with 1008. Pings between the fragments do
	// not extend it; time in which the client waits because of us does not count.
	// Default 60 s; 0 is no limit.
	MessageTimeout time.Duration
	// WriteTimeout bounds the time in which a client takes none of the bytes that wait for
	// it, not even from the buffers of the two kernels: its connection ends then,
	// without a close frame, which it could not read. A client that reads slowly is
	// not concerned. Default 60 s; 0 is no limit.
	WriteTimeout time.Duration
	// HeadBytes and HeadLines bound an upgrade request on ListenAddr: its bytes, and
	// its header lines. Beyond them it is refused with 431, a request line with 414.
	// A request that comes in small pieces is scanned anew with each, so larger bounds
	// let a hostile client cost more. Behind net/http its own limit holds alone
	// (http.Server.MaxHeaderBytes). Default 16 KiB and 128, 256 KiB and 1,024 at most.
	HeadBytes int
	HeadLines int
	// HandshakeTimeout bounds the time from accept to the end of the handshake,
	// Authenticate included. Default 10 s.
	HandshakeTimeout time.Duration
	// CloseTimeout bounds the close handshake, from our close frame to the end
	// of the connection. Before that it bounds the time for which our close frame waits
	// for the handlers of messages that came before the client's close frame or
	// violation. Default 5 s.
	CloseTimeout time.Duration

	// OriginWhitelist, CheckOrigin and AllowAllOrigins choose the web pages that may
	// connect; set one at most. Without any, a request's Origin must have the
	// request's own host and port and the scheme http or https, and a request without
	// Origin (not a browser) passes. Default ports, a dot at the host's end and the case of
	// ASCII letters make no difference.

	// OriginWhitelist lists exact origins, such as "https://example.com:8443".
	// A missing Origin is refused. An entry with a wildcard matches nothing, which
	// is logged once.
	OriginWhitelist []string
	// CheckOrigin decides by itself. It runs where Authenticate runs.
	CheckOrigin func(*http.Request) bool
	// AllowAllOrigins is for development.
	AllowAllOrigins bool

	// Subprotocols lists the subprotocols that the application speaks, in its
	// order of preference, 255 at most. The handshake chooses the first that the client
	// offers; see Client.Subprotocol. A client that offers none of them connects
	// without one; a browser then ends the connection if the page asked for one.
	// Default none.
	Subprotocols []string
	// Authenticate runs before the handshake's answer; see WithAuthenticate.
	Authenticate func(*http.Request) ([]ClientOption, error)

	// DuplicateID decides between a client and an older one with the same ID, see
	// WithClientID. Default RefuseNew.
	DuplicateID DuplicateIDPolicy

	// OnConnect runs for each client that connects, on both paths, after its
	// EventClientConnected and the rooms of WithRooms, and before its 101 is sent: a room
	// that OnConnect joins delivers all that is published after the client has read the
	// 101. The messages of OnConnect follow the 101, before all answers. None of the
	// client's messages is handled before it returns.
	//
	// An error closes the client with the code and reason of a *CloseError, and otherwise
	// with code 1008; then it is logged, and published as EventError. So is a panic.
	//
	// It may block: up to Config.Workers calls run at once, apart from those of
	// Authenticate, and more wait. It may take HandshakeTimeout once more; a client that
	// waits for longer is closed with 1008. Until it returns, messages to the client stay
	// in its queue, within its bounds. Nil, the default, is none.
	OnConnect func(*Client) error

	// EnableCompression offers permessage-deflate (RFC 7692) to clients that ask
	// for it. Default off.
	EnableCompression bool
	// Compression configures the compression.
	Compression CompressionConfig
	// Metrics receives measurements; nil is NoopMetrics.
	Metrics Metrics
	// Room and Broadcast configure rooms and publishing.
	Room      RoomConfig
	Broadcast BroadcastConfig

	// ListenAddr makes the event loops accept connections themselves:
	// "tcp://host:port", "tcp4://", "tcp6://", "unix://path", or "host:port"
	// for TCP. Empty, the default, serves HandleUpgrade and Serve only.
	//
	// As with package net, tcp without a host, or on 0.0.0.0 or [::], listens on both
	// families (unless the system has net.ipv6.bindv6only set), and tcp4 and tcp6 on
	// their own alone. A link-local address needs its zone: "tcp://[fe80::1%eth0]:80".
	// Unlike there, the port is a number.
	//
	// A Unix path is taken as it is. A socket that another process listens on is an
	// error, and so is a file of another kind; a socket that was left there is
	// replaced. When Run ends, it removes its own socket alone. "unix://@name" is an
	// abstract socket of Linux. A connection over a Unix socket has the RemoteAddr "".
	ListenAddr string
	// UnixSocketMode is the mode of the socket file of a ListenAddr with a Unix
	// path, such as 0o660: a process that may write to the file can connect. It is set
	// before the socket listens. 0, the default, leaves it to the umask.
	UnixSocketMode fs.FileMode
	// Simnet, if set, takes the place of sockets, for simulation: see the command
	// sim of the bench suite. It excludes ListenAddr, Serve and HandleUpgrade. Default
	// none.
	Simnet *Simnet
	// TLSConfig makes ListenAddr and Serve speak TLS; see WithTLSConfig. HandleUpgrade needs
	// none: there the application's http.Server speaks TLS.
	TLSConfig *tls.Config
	// TLSHandshakes bounds the TLS handshakes that compute at once on ListenAddr.
	// A handshake that waits for its client does not count: up to 16 times as many may be
	// under way. Further handshakes wait for their turn, under HandshakeTimeout, too.
	// While any waits for its turn, the handshake that began first to wait for its client
	// is cut off when it has waited for a tenth of HandshakeTimeout in all. Default 256.
	TLSHandshakes int
	// TrustedProxies are the networks of the proxies in front of the server; see
	// WithTrustedProxies. Default nil, none.
	TrustedProxies []netip.Prefix
	// ProxyProtocol makes connections begin with a header of the PROXY protocol; see
	// WithProxyProtocol. Default false.
	ProxyProtocol bool
	// Admission bounds new connections: their pace, and those of one address. Default no limit.
	Admission Admission
	// Paths are the URL paths of the WebSocket on ListenAddr, compared without
	// percent-encoding. One that ends in a slash matches itself and all paths below it:
	// Authenticate reads the whole path in r.URL.Path, decoded, with the dots and double
	// slashes that the client has sent.
	// Default "/ws".
	Paths []string
	// LivePath and ReadyPath answer health checks on ListenAddr, whatever the method,
	// HTTP/1.0 and a request without Host included. LivePath answers 200 while the event
	// loops run, ReadyPath only while new clients should come: 503 from Drain and Shutdown on, and at
	// MaxConnections. OPTIONS for / or *, the check of HAProxy's "option httpchk", is
	// answered like ReadyPath. An empty path is off. Default "/healthz" and "/readyz".
	LivePath  string
	ReadyPath string
	// Loops is the number of event loops, 256 at most; 0, the default, is
	// GOMAXPROCS.
	Loops int
	// RoomShards is the number of shards of the room directory, a power of
	// two; 0, the default, is 4 for each loop, rounded up.
	RoomShards int

	// KeepGOMAXPROCS makes Run leave GOMAXPROCS as it is. An event loop keeps a processor
	// of Go's scheduler while it waits, so with as many loops as processors the other
	// goroutines of the process wait, too: up to 10 ms for bytes from a database. So Run
	// raises GOMAXPROCS by one, unless it is larger than the number of loops of the process
	// already, or the environment sets it; the end of Run takes that back. From Run on, Go
	// does not follow changes of the CPU limit of a container any more. Default false.
	KeepGOMAXPROCS bool

	// BatchedWrites says whether an event loop writes to many sockets in one system call,
	// with io_uring. Default Auto.
	BatchedWrites BatchedWrites
	// JSONMarshal and JSONUnmarshal take the place of encoding/json; see WithJSON. Default nil,
	// encoding/json.
	JSONMarshal   func(v any) ([]byte, error)
	JSONUnmarshal func(data []byte, v any) error
	// HandlerMode says where handlers run. Default Pooled.
	HandlerMode HandlerMode
	// Workers bounds the goroutines that run pooled handlers; as many others may run
	// OnConnect, and as many again Authenticate, unless Admission.Authentications is set. 0,
	// the default, is 256 for each CPU.
	Workers int
	// MailboxSize and MailboxBytes bound the messages of one client that wait for a
	// pooled handler, without the message that is being handled. Beyond one of them the
	// client waits: its connection is not read until half of them are handled. One
	// message of any size is always taken. A client holds at most this much, one message
	// more, and one read of 64 KiB. When it hangs up, its messages are dropped; see
	// Handler. Default 64 messages and 1 MiB.
	MailboxSize  int
	MailboxBytes int64

	// RateLimit bounds the messages and bytes that one client may send. Default no limit.
	RateLimit RateLimit
	// Inbox gives users inboxes; see WithInbox. Default nil, none.
	Inbox *Inbox
	// Idempotency keeps the first replies to requests, for repeats. Default off.
	Idempotency Idempotency

	// Broker connects the manager with the managers of other processes; see WithBroker. Default
	// none.
	Broker Broker
	// Cluster configures the node of a Broker. A zero field has its default.
	Cluster ClusterConfig

	// ControlFrameLimit bounds the pings and pongs that one client may send in a
	// second; a client beyond it is closed with 1008. It is applied to each
	// quarter of a second, or shorter times if a timeout is below 2.5 s, and lets
	// 1,000 through in each. Default 10,000; 0 is no limit.
	ControlFrameLimit int

	// LoopStallThreshold is the time for which a callback may hold an event loop. One that
	// holds it longer is logged once, with the stack of the loop's goroutine, counted in
	// LoopStats.Stalls, and reported to OnStall. It is found half of the threshold later at
	// most. Time in which the process did not run does not count. Default 100 ms; 0 is off,
	// and 10 ms the least.
	LoopStallThreshold time.Duration
	// OnStall, if set, gets each stall. It runs on a goroutine of its own, one call at a time,
	// and may block: stalls of one loop that come meanwhile are counted, and one of them is
	// reported. Run returns after it.
	OnStall func(Stall)
	// FlightRecorder keeps the last seconds of the execution trace of the process, for
	// WriteTrace; see trace.NewFlightRecorder. Run starts it if it does not run, and then stops
	// it at its end. A process can have one at a time: if another one runs, give that one, or
	// Run logs a warning and goes on without. Default none.
	FlightRecorder *trace.FlightRecorder

	// Logger receives all that an operator should know; nil is slog.Default(). The same
	// message comes ten times in a second at most; at the end of a second in which
	// there were more, it comes once more with the attribute "suppressed", their
	// number. A panic of its handler is written to the standard error once, and has
	// no other effect.
	Logger *slog.Logger
}

// RoomConfig configures rooms.
type RoomConfig struct {
	// MaxRoomSize bounds a room's members; 0, the default, is no limit.
	MaxRoomSize int
	// MaxRoomsPerClient bounds the rooms that a client is in at once: JoinRoom
	// returns ErrTooManyRooms beyond it. Default 1,024; 0 is no limit.
	MaxRoomsPerClient int
	// MaxRoomName bounds a room's ID in bytes: JoinRoom and CreateRoom return
	// ErrInvalidRoom beyond it. Default 256; 0 is no limit.
	MaxRoomName int
	// CleanupInterval is the time between two searches for empty rooms of CreateRoom.
	// Default 5 min.
	CleanupInterval time.Duration
	// EmptyRoomTTL is the time that a room of CreateRoom may be empty before it ends.
	// Default 10 min. A room that JoinRoom has made ends with its last member.
	EmptyRoomTTL time.Duration
}

// BroadcastConfig configures publishing.
type BroadcastConfig struct {
	// QueueSize is the number of places in each loop's ring, rounded up to a
	// power of two. Default 1,024.
	QueueSize int
	// BatchSize is the number of messages that a loop takes from its ring at once, before
	// it writes. While it writes, it takes more: up to twice as many ahead of the client
	// that waits longest, but no more than half of MessageQueueSize. Under load a larger
	// batch needs fewer system calls for each delivery, and its first message waits
	// longer. 4,096 at most; 0 is the default, 64.
	BatchSize int
	// Timeout is the longest wait of a publisher for a full ring. Default 5 s.
	Timeout time.Duration
}

// BatchedWrites says whether event loops write to many sockets in one system call. Such a
// call takes about half of the CPU time of a call for each socket when a message goes to
// many members of a room.
type BatchedWrites uint8

const (
	// Auto batches writes if the kernel has io_uring (Linux 5.18) and allows it. Container
	// runtimes often forbid it; then each socket is written to by a call of its own. The
	// environment variable WS_BATCHED_WRITES=off turns Auto into Off.
	Auto BatchedWrites = iota
	// Off writes to each socket by a call of its own.
	Off
)
