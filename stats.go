package ws

//go:generate go run ./internal/codegen

import (
	"iter"
	"time"
)

// The structs of this file are the one list of the library's figures. A field's name, type and
// comment give the name, kind and help of its figure: uint64 counts from Run on, Duration is a
// time, Times and Sizes are histograms, other numbers are values of now. `go generate` derives the
// counters of the engine, the sums, Figures and Histograms from them.

// Stats is a snapshot of a Manager.
type Stats struct {
	Clients        int    // connected clients
	Rooms          int    // rooms, with and without members
	Handlers       int    // registered handlers
	WaitingTasks   int    // clients whose messages wait for a worker
	DroppedEvents  int64  // events that the EventBus dropped since ResetDroppedEventCount
	RateLimited    uint64 // messages refused by Config.RateLimit
	Unhandled      uint64 // messages received without a handler: the client had hung up, or a close came first
	LateHandlers   uint64 // calls of handlers that took longer than LogAfter
	Histories      int    // rooms with a history
	HistoryMemory  int64  // memory of all histories, for Config.HistoryBudget
	HistoryEvicted uint64 // messages of histories that were dropped for Config.HistoryBudget
	Replayed       uint64 // messages of histories that were sent to one member, because it was late or slow
	Gaps           uint64 // gaps in the messages of histories, one for each member that was told

	Inboxes          int    // inboxes of users, among the Histories
	InboxUndelivered uint64 // messages of inboxes that were dropped before all devices had acknowledged them
	InvalidAcks      uint64 // acknowledgements of messages that the client was not sent

	InboundMemory int64            // bytes that count against Config.InboundBudget; 0 without one
	Draining      bool             // Drain or Shutdown has begun
	Stuck         int              // calls of Authenticate and CheckOrigin that outlast HandshakeTimeout or their client
	Refused       RefusalCounts    // refused upgrade requests
	Accept        AcceptStats      // new connections that wait
	Idempotency   IdempotencyStats // replies that are kept for repeats of requests
	Presence      PresenceStats    // rooms WithPresence
	Cluster       ClusterStats     // this node of a cluster; zero without a Broker
	Loops         []LoopStats      // one for each event loop
	Total         LoopStats        // the sum of Loops; of OldestWait and LongestStall, the maximum
	Routes        []RouteStats     // one for each handler, sorted by Event
}

// LoopStats is a snapshot of one event loop.
type LoopStats struct {
	Connections  int    // sockets, those in the handshake included
	Opened       uint64 // connections that finished the handshake
	Closed       uint64 // connections that finished the handshake and ended
	Retired      uint64 // connections that were asked to move, or closed, at the end of Config.MaxLifetime
	DrainMoved   uint64 // connections that left by themselves after the notice of a drain
	DrainClosed  uint64 // connections that a drain closed at its pace
	DrainForced  uint64 // connections that closed at once at the end of a drain
	DrainLeft    uint64 // connections that ended by themselves during a drain, without a notice
	MessagesIn   uint64 // data messages received
	MessagesOut  uint64 // data messages sent
	BytesIn      uint64 // bytes received
	BytesOut     uint64 // bytes sent
	Writes       uint64 // system calls that wrote to sockets
	Batched      uint64 // writes to one socket that shared a system call with others; see Config.BatchedWrites
	BlockedTotal uint64 // times a socket was full
	Blocked      int    // connections whose socket is full
	QueuedMemory int64  // memory of the queues of blocked connections, for QueueBudget; a frame counts in each queue
	Slow         int    // connections between OnSlow and OnDrain
	Paused       int    // connections that are not read, so that their clients wait
	BudgetPaused int    // connections paused for the InboundBudget; counted about four times a second
	PausedTotal  uint64 // times a connection was paused
	HeldBytes    int64  // bytes received of paused connections that are not decoded yet
	Tasks        uint64 // tasks run from the inbox
	Yields       uint64 // turns cut short for fairness
	InboxLen     int    // tasks waiting in the inbox
	// OldestWait is at least the age of the oldest message that waits for a full socket. A
	// message that replaced another by its conflation key has the age of the first.
	OldestWait time.Duration // least age of the oldest message that waits for a full socket; measured 4 times a second
	WakeUps    uint64        // times the loop was woken for its inbox
	Waits      uint64        // times the loop waited for events by itself, not in gnet; see Config.KeepGOMAXPROCS
	// Busy is the time in which the loop worked: its callbacks, and up to 20 µs of each gap between
	// two of them, in which it reads sockets or begins to wait. A loop whose Busy grows by a second
	// each second has no time left. A callback that runs counts up to now.
	Busy         time.Duration // total time in which the loop worked
	Stalls       uint64        // callbacks that held the loop for LoopStallThreshold
	LongestStall time.Duration // longest time for which one of them has held the loop
	Drops        DropCounts    // messages that were not sent
	Closes       CloseCounts   // connections that finished the handshake and ended, by close code
	// Handshake counts each connection. It does not include the wait to be accepted.
	Handshake Times // time from the acceptance of a connection, or the call of HandleUpgrade, to the answer 101
	RoundTrip Times // time from a heartbeat's ping to its pong
	// MailboxWait and Publish are sampled: of the first 32 events of a loop in about 250 ms all
	// are measured, of the others one of 16 is, and counts for 16.
	MailboxWait Times // time from the arrival of a message to the start of its handler on a worker
	// Publish counts a message once, on the last loop. Members whose socket is full then are not
	// waited for; see OldestWait.
	Publish Times // time from the publication of a message to its write to the last member that reads
	Queued  Sizes // bytes that wait for each blocked client, counted about four times a second
}

// RouteStats is a snapshot of the calls of one handler.
type RouteStats struct {
	// Event is the event of the handler; "raw" and "binary" are the messages of HandleRaw and
	// HandleBinary, "other" those without a handler.
	Event string
	// Handler is sampled like LoopStats.MailboxWait.
	Handler Times // time to handle a message, with its envelope and the middleware
}

// CloseCounts is the numbers of connections that ended, by the code of the first close frame.
type CloseCounts struct {
	Code1000 uint64 // normal closure
	Code1001 uint64 // going away: Shutdown, or a page that is left
	Code1002 uint64 // protocol error
	Code1003 uint64 // unsupported data
	Code1005 uint64 // a close frame without a code
	Code1006 uint64 // no close frame
	Code1007 uint64 // invalid UTF-8, or invalid compressed data
	Code1008 uint64 // policy violation, such as the rate limit
	Code1009 uint64 // message too big
	Code1010 uint64 // an extension is missing
	Code1011 uint64 // internal error
	Code1012 uint64 // service restart
	Code1013 uint64 // try again later: a client that reads too slowly
	Code1014 uint64 // bad gateway
	Code3xxx uint64 // registered codes
	Code4xxx uint64 // codes of the application
	Other    uint64 // other codes
}

// DropCounts is the numbers of messages that clients did not get, by reason. A message
// counts once for each client that it was for.
type DropCounts struct {
	Full      uint64 // the client's queue was full; or a ring, for a sender that must not wait
	Expired   uint64 // the time to live was over before the message could be written
	Conflated uint64 // a newer message with the same key took its place in the queue
	Budget    uint64 // all queues together were over the budget, and this client's was the largest
	Closed    uint64 // the connection was closed or closing
}

// Lost is the sum of all but Conflated.
func (c *DropCounts) Lost() uint64 { return c.Full + c.Expired + c.Budget + c.Closed }

// RefusalCounts is the numbers of upgrade requests that were refused, those of
// ListenAddr and of HandleUpgrade together, by reason.
type RefusalCounts struct {
	Auth      uint64 // Authenticate returned an error: 401, or its own status
	Malformed uint64 // no handshake of RFC 6455: 400, 405, 414, 426, 431, 505
	Proxy     uint64 // a proxy began without a valid header of the PROXY protocol: 400
	Path      uint64 // not one of Config.Paths: 404
	Origin    uint64 // a page of an origin that may not connect: 403
	Full      uint64 // MaxConnections, no descriptors, or no turn in time under WithAdmission: 503
	// AddressRate and AddressFull count the connections of ListenAddr and Serve, too, which are
	// refused before their request.
	AddressRate uint64 // connections of one address came faster than Admission.PerIP: 429
	AddressFull uint64 // Admission.PerIPConnections: 429
	ClientID    uint64 // WithClientID is taken: 409
	Timeout     uint64 // HandshakeTimeout, also of a connection that sent nothing: 408
	Stopped     uint64 // Run had not begun in time, or Shutdown had, or the Grace of Drain was over: 503
	Failed      uint64 // a fault of the application or of the server, or the network ended the connection: 500
}

// AcceptStats is a snapshot of the gate that lets new connections in.
type AcceptStats struct {
	Descriptors    RestStats // waits for descriptors, when the process or the machine has none to spare
	Pace           RestStats // waits for a turn at the pace of Admission
	Upgrades       int       // calls of HandleUpgrade that wait for their turn
	Polite         uint64    // refused upgrades that were accepted and closed with 1013, for Admission.Polite
	Addresses      int       // addresses with connections that count for the limits by address of Admission
	Uncounted      uint64    // connections that do not count for their address, because the table was full
	Authenticating int       // upgrades whose Authenticate or CheckOrigin runs
	AuthQueue      int       // upgrades that wait for a turn of Admission.Authentications
}

// IdempotencyStats is a snapshot of the requests whose replies are kept; see Idempotency.
type IdempotencyStats struct {
	Requests int    // idempotent requests that are remembered, with their replies
	Bytes    int64  // memory of the idempotent requests that are remembered, for Idempotency.Bytes
	Repeats  uint64 // repeats of idempotent requests that got the first reply, or wait for it
	Evicted  uint64 // replies to idempotent requests that were given up for space, before the end of the window
	Differed uint64 // repeats of idempotent requests with another event or other data: 422
	Refused  uint64 // idempotent requests for which there was no space: 503
	Unkept   uint64 // idempotent requests without a request_id, or of a client without a user and an ID of its own
}

// ClusterStats is a snapshot of a Manager as a node of a cluster; see WithBroker.
type ClusterStats struct {
	Up          bool   // the link to the broker is up
	Nodes       int    // nodes of the cluster that are alive, this one included
	Topics      int    // rooms and users that this node subscribes to at the broker
	QueuedBytes int64  // bytes that wait for the link to the broker, for ClusterConfig.QueueBytes
	Breaks      uint64 // losses that concern all topics; each connection to the broker is one, and each dead node
	Gaps        uint64 // gaps that were published, because messages of other nodes were possibly lost
	Published   uint64 // messages that the broker has taken for other nodes
	Unsent      uint64 // messages for other nodes that the broker has not taken, because the link broke or was held up
	Refused     uint64 // messages for other nodes that were refused, because the link was down or its queue full
	Received    uint64 // messages of other nodes
	Unwanted    uint64 // messages of other nodes for which there was no client
	Undelivered uint64 // messages of other nodes that were not delivered, because the ring of an event loop stayed full
	Holes       uint64 // losses between the nodes that the broker has not reported, but for new subscriptions
	Malformed   uint64 // messages of the broker that no node of this version has sent
	Loads       uint64 // histories of rooms that were read from the store as a whole
	Repairs     uint64 // answers of the store with messages that had not come by themselves
	StoreErrors uint64 // requests that the store has not answered, or has refused
}

// PresenceStats is a snapshot of the rooms WithPresence.
type PresenceStats struct {
	Rooms     int    // rooms with users that are present, also held ones
	Published uint64 // notifications of presence to all members of a room
	Snapshots uint64 // lists or numbers of present users that were sent to one member
	Resumed   uint64 // members that came back, or had missed a notification, and got the changes alone
}

// RestStats is the waits of new connections for one reason.
type RestStats struct {
	Resting bool          // connections wait
	Times   uint64        // episodes of waiting; those less than 10 s apart are one
	Time    time.Duration // total time during which connections waited
}

// Stats returns a snapshot: Total is the sum of Loops as they are in it. It
// takes no lock that a loop could wait for.
func (m *Manager) Stats() Stats {
	st := Stats{
		Clients: m.GetClientCount(), Rooms: m.rooms.Len(), Handlers: m.Router.routes.Len(),
		WaitingTasks: m.waitingTasks(), DroppedEvents: m.EventBus.GetDroppedEventCount(),
		RateLimited: m.rateLimited.Load(), Unhandled: m.unhandled.Load(), LateHandlers: m.late.count.Load(),
		Histories: int(m.histories.count.Load()), HistoryMemory: m.histories.bytes.Load(),
		HistoryEvicted: m.histories.evicted.Load(), Replayed: m.histories.replayed.Load(), Gaps: m.histories.gaps.Load(),
		Inboxes: int(m.histories.inboxes.Load()), InboxUndelivered: m.histories.undelivered.Load(),
		InvalidAcks:   m.histories.invalidAcks.Load(),
		InboundMemory: m.engine.Inbound(), Stuck: int(m.auth.stuck.Load() + m.greeter.stuck.Load()),
		Draining: m.isDraining(),
		Refused:  m.refusals.counts(), Accept: m.acceptStats(),
	}
	for _, s := range m.engine.Shards() {
		loop := loopStats(s.Stats())
		st.Loops = append(st.Loops, loop)
		st.Total.Add(&loop)
	}
	st.Routes = m.handlerTimes.stats()
	st.Idempotency = m.idempotencyStats()
	st.Presence = m.presences.stats()
	st.Cluster = m.node.stats()
	return st
}

func (m *Manager) acceptStats() AcceptStats {
	st := m.engine.AcceptStats()
	return AcceptStats{
		Descriptors: RestStats(st.Descriptors), Pace: RestStats(st.Pace), Upgrades: st.Upgrades,
		Polite: m.admission.closes.Load(), Addresses: st.Addresses, Uncounted: st.Uncounted,
		Authenticating: m.auth.workers.Running(), AuthQueue: m.auth.workers.Waiting(),
	}
}

// Figure describes one number of Stats, for metrics and pages.
type Figure struct {
	Name    string // in snake case with its unit, such as "loop_bytes_in_total"
	Help    string // the comment of its field
	Counter bool   // it counts from Run on; otherwise it is a value of now
	Reason  string // the reason for a drop or refusal, such as "client_id", or a close code; otherwise ""
	Loop    int    // index of the event loop; -1 for a figure of the whole Manager
}

// Figures yields each figure of st with its value; times are in seconds. A figure of an event loop comes
// for each loop, one after the other, not for the Total.
func (st *Stats) Figures() iter.Seq2[Figure, float64] {
	return func(yield func(Figure, float64) bool) {
		for _, f := range managerFigures {
			f.Loop = -1
			if !yield(f.Figure, f.value(st)) {
				return
			}
		}
		for _, f := range loopFigures {
			for i := range st.Loops {
				f.Loop = i
				if !yield(f.Figure, f.value(&st.Loops[i])) {
					return
				}
			}
		}
	}
}

// figure is a Figure and its value in a T.
type figure[T any] struct {
	Figure
	value func(*T) float64
}

func boolFigure(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
