// Package control is the protocol between the load generator and a server under
// load, and the part that all servers have in common, whatever library they are
// built on: the commands on the server's standard input, the reports on its
// standard output, the publisher, and the first bytes of the messages.
package control

import "time"

// The first byte of a client's message to a server that does not echo all. A
// join may have the room's number behind it, 4 bytes, little-endian; without it
// is room 0. An acknowledgement has a sequence number, 8 bytes, and the room's
// number like a join.
const (
	JoinByte = 'j'
	AckByte  = 'a'
	EchoByte = 'e'

	// PublishByte has a room's number and a payload behind it, which goes to all
	// members; the server writes the room's next sequence number into its stamp.
	PublishByte = 'p'
	// EnterByte and LeaveByte have a room's number. The answer is a stamp: the
	// number of the room's next message, with AnswerBit and perhaps LeftBit, and
	// the room. A client gets all from its entering to its leaving.
	EnterByte = 'i'
	LeaveByte = 'o'
)

// The answers to EnterByte and LeaveByte.
const (
	AnswerBit = 1 << 63
	LeftBit   = 1 << 62
)

// StampBytes is the length of the stamp at the beginning of each message: a
// sequence number and the time at which the message was due (Now), 8 bytes
// each, little-endian.
const StampBytes = 16

// EchoData is the data of a request and of a response in mode JSON.
type EchoData struct {
	Seq  uint64 `json:"seq"`
	Sent int64  `json:"sent"`
	Pad  string `json:"pad"`
}

// NoopData is the data of a request in mode Noop.
type NoopData struct {
	Pad string `json:"pad"`
}

// NoopAnswer is the data of a response in mode Noop.
type NoopAnswer struct{}

// RoomData is the data of a request to join or leave a room in mode Attack.
type RoomData struct {
	Room string `json:"room"`
}

// Item is one of a list in a request of the event "items" in mode Attack: as
// large as a record of an application may be.
type Item struct {
	Name, Owner, Kind, Color, Place, Note, State, Parent string
	Price, Weight, Width, Height, Depth, X, Y, Z         float64
	Tags, Links, Images                                  []string
	Created, Changed, Deleted                            time.Time
}

// Count is the data of the answer to a list.
type Count struct {
	Items int `json:"items"`
}

// The modes of a server: how it handles messages.
const (
	Rooms = ""     // as their first byte says
	Echo  = "echo" // sends them back as they are
	JSON  = "json" // decodes requests of the event "echo" and answers with their data
	Noop  = "noop" // decodes requests of the event "noop" and answers with NoopAnswer
	Head  = "head" // answers with the first StampBytes of each message

	// History has ws.join, and rooms with a history; it echoes binary messages. A publisher
	// publishes events of HistoryEvent. See the command resume.
	History = "history"

	// Numbered handles binary messages as Rooms, and has ws.join, and rooms with a history. A publisher
	// publishes EchoData, whose numbers have NumberBase added, as events of HistoryEvent. See the
	// command cluster.
	Numbered = "numbered"

	// Attack has a route for each kind of abuse; see the command attack.
	Attack = "attack"

	// Soak handles text as Attack and binary messages as Rooms. After the command
	// drain another manager serves the same addresses. With each message to room 0 it
	// publishes a number to KeptRoom, which has a history and ws.join. See the command soak.
	Soak = "soak"
)

// The brokers of a cluster, for Config.Broker.
const (
	NATS      = "nats"       // streams of histories are in memory ...
	NATSFiles = "nats-files" // ... or in files
	Redis     = "redis"
	Sharded   = "sharded" // a Redis Cluster
)

// NumberBase is added to numbers in JSON, so that each has NumberDigits digits.
const (
	NumberBase   = 1_000_000_000_000_000_000
	NumberDigits = 19
)

// HistoryEvent is the event of the messages of rooms with a history.
const HistoryEvent = "n"

// KeptRoom is the room with a history in mode Soak.
const KeptRoom = "soak-kept"

// NoticeQuery is the query of a client that understands the notice of a drain.
const NoticeQuery = "notice"

// Config is the argument of a server process.
type Config struct {
	Mode           string        // a constant above
	HandlerTime    time.Duration // that a handler takes in mode Noop
	Pooled         bool          // handlers run on workers, where the library knows a choice
	MaxConnections int
	Loops          int // 0 is the library's default, as with all that follow
	RoomShards     int
	Queue, Ring    int
	Batch          int           // messages that a loop takes from its ring at once
	QueueBytes     int64         // bound of a client's queue
	SingleWrites   bool          // the loops write to each connection by a call of its own
	Unsent         int           // bytes that the kernel may hold unsent for a client; negative is no bound
	Scrape         time.Duration // between two snapshots of all figures; 0 is none
	ProfileHeap    bool
	Compress       bool
	TLS            bool
	Authenticate   bool          // a token is asked for, see Token
	AuthDelay      time.Duration // how long that takes, as if a database was asked
	Placed         bool          // WithPlacement by the query of the request
	Notices        bool          // WithReconnectNotice if the query of the request is NoticeQuery
	AdmitPerSecond float64       // connections that are let in each second; 0 is no limit
	AdmitBurst     int           // of these, how many at once
	HistorySize    int           // messages that each room keeps, in modes History and Numbered
	JoinRooms      int           // rooms that a client is put into as it connects, see RoomOf

	// Broker makes the server a node of a cluster, in the program bench/nodes only: a constant above.
	// BrokerAddr are the addresses of its server, with commas between.
	Broker, BrokerAddr string

	// In modes Attack and Soak only, in which all other settings are the library's defaults.
	HandshakeTimeout  time.Duration
	MessagesPerSecond float64 // rate limit of a client; 0 is no limit

	// Leak is a resource of Leaks that the server loses with each connection in mode
	// Soak, so that a test can assert that a soak finds it.
	Leak string
}

// Leaks are the values of Config.Leak. Immutable.
var Leaks = []string{"goroutines", "descriptors", "heap"}

// Link is the link of a node to its broker.
type Link struct {
	LinkUp   bool
	Topics   int    // rooms to which the node is subscribed at the broker
	FromLink uint64 // messages that the broker has handed to the node, its own ones included
	LinkGaps uint64 // gaps in rooms, because messages were possibly lost
	LinkLost uint64 // messages that the node did not take or deliver
	Repairs  uint64 // answers of the store with messages that had not come by themselves
}

// Command is one line to the server; a Report is its answer.
type Command struct {
	Name        string // report, queues, workers, settle, mark, publish, stop, fill, drain, shutdown, profile, heap
	Size        int
	Rooms       int     // publish, fill, drain: over this many rooms in turn; 0 is 1
	First, Step int     // publish, fill, drain: of these, First and each Step behind it; 0 is all
	Publishers  int     // publish: goroutines that share the rate or the outstanding messages; 0 is 1
	Count       int     // fill, drain: messages to each room; drain does not wait for them
	Outstanding int     // publish: bound of unacknowledged messages ...
	Rate        float64 // ... or messages a second; 0 of both is without a pause
	File        string  // profile: begin; empty: end

	Window, Settle time.Duration // drain: see ws.DrainConfig
}

// Report holds the measurements of the server process. The counts begin at its
// start.
type Report struct {
	Error        string `json:",omitempty"`
	Native, HTTP string `json:",omitempty"` // addresses, in the first line only
	Library      string `json:",omitempty"` // name and version, in the first line only

	At          int64         // Now
	CPU         time.Duration // user and system
	Switches    int64         // context switches
	ReadCalls   uint64        // read, recv and the like, by the kernel's count
	WriteCalls  uint64        // write, writev and the like, by the kernel's count
	RSS         uint64
	Anonymous   uint64 // RSS without pages of files; 0 if the kernel does not say it
	PeakRSS     uint64 // since its start, or the last mark
	HeapAlloc   uint64
	HeapInuse   uint64
	Objects     uint64
	Mallocs     uint64 // objects that were ever allocated
	TotalAlloc  uint64 // bytes that were ever allocated
	Stacks      uint64
	Goroutines  int
	Descriptors int

	Published, PublishErrors uint64

	// From the library; 0 if it does not count them.
	Clients, Members                          int
	Writes, WakeUps, Tasks, Dropped, Messages uint64
	AdmissionWait                             time.Duration // time during which connections waited for their turn
	Pauses                                    uint64        // of connections that sent too fast
	Handled                                   uint64        // messages of clients
	Moved, Closed, Forced, Left               uint64        // connections by their end in a drain
	HistoryMemory                             int64         // of all rooms
	Replayed                                  uint64        // messages read from a history for one member
	Kept                                      uint64        // offset of the newest message of KeptRoom
	LogLines                                  uint64        // written to the log, in modes Attack and Soak only

	Link // of a node of a cluster

	// Of the server of a broker. CPU is the time of its processes.
	BrokerIn, BrokerOut           uint64 // messages; Redis does not count those that it sends
	BrokerBytesIn, BrokerBytesOut uint64

	IdleWorkers int // goroutines of gnet's pool that wait for work; in the answers to workers and settle only

	// In the answers to queues and settle only.
	Backlogged  int    // clients that have messages queued
	QueuedBytes uint64 // of all clients
}
