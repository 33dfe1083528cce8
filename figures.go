// Code generated from stats.go by statsgen; DO NOT EDIT.

package ws

import "github.com/qi-realtime/ws/engine"

func loopStats(st engine.ShardStats) LoopStats {
	return LoopStats{
		Connections:  st.Connections,
		Opened:       st.Opened,
		Closed:       st.Closed,
		MessagesIn:   st.MessagesIn,
		MessagesOut:  st.MessagesOut,
		BytesIn:      st.BytesIn,
		BytesOut:     st.BytesOut,
		Writes:       st.Writes,
		BlockedTotal: st.BlockedTotal,
		Blocked:      st.Blocked,
		QueuedMemory: st.QueuedMemory,
		Slow:         st.Slow,
		Paused:       st.Paused,
		BudgetPaused: st.BudgetPaused,
		PausedTotal:  st.PausedTotal,
		HeldBytes:    st.HeldBytes,
		Tasks:        st.Tasks,
		Yields:       st.Yields,
		InboxLen:     st.InboxLen,
		OldestWait:   st.OldestWait,
		WakeUps:      st.WakeUps,
		Drops:        DropCounts(st.Drops),
	}
}

// Add adds the numbers of o.
func (st *LoopStats) Add(o *LoopStats) {
	st.Connections += o.Connections
	st.Opened += o.Opened
	st.Closed += o.Closed
	st.MessagesIn += o.MessagesIn
	st.MessagesOut += o.MessagesOut
	st.BytesIn += o.BytesIn
	st.BytesOut += o.BytesOut
	st.Writes += o.Writes
	st.BlockedTotal += o.BlockedTotal
	st.Blocked += o.Blocked
	st.QueuedMemory += o.QueuedMemory
	st.Slow += o.Slow
	st.Paused += o.Paused
	st.BudgetPaused += o.BudgetPaused
	st.PausedTotal += o.PausedTotal
	st.HeldBytes += o.HeldBytes
	st.Tasks += o.Tasks
	st.Yields += o.Yields
	st.InboxLen += o.InboxLen
	st.OldestWait = max(st.OldestWait, o.OldestWait)
	st.WakeUps += o.WakeUps
	st.Drops.Add(&o.Drops)
}

// Add adds the numbers of o.
func (st *DropCounts) Add(o *DropCounts) {
	st.Full += o.Full
	st.Expired += o.Expired
	st.Conflated += o.Conflated
	st.Budget += o.Budget
	st.Closed += o.Closed
}

// The reasons for refusals.
const (
	refusedAuth      refusalReason = iota // Authenticate returned an error: 401, or its own status
	refusedMalformed                      // no handshake of RFC 6455: 400, 405, 414, 426, 431, 505
	refusedPath                           // not one of Config.Paths: 404
	refusedOrigin                         // a page of an origin that may not connect: 403
	refusedFull                           // MaxConnections, no descriptors, or no turn in time under WithAdmission: 503
	refusedClientID                       // WithClientID is taken: 409
	refusedTimeout                        // HandshakeTimeout, also of a connection that sent nothing: 408
	refusedStopped                        // Run had not begun in time, or Shutdown had: 503
	refusedFailed                         // a fault of the application or of the server, or the network ended the connection: 500
	numRefusalReasons
)

func (n *refusals) counts() RefusalCounts {
	return RefusalCounts{
		Auth:      n[refusedAuth].Load(),
		Malformed: n[refusedMalformed].Load(),
		Path:      n[refusedPath].Load(),
		Origin:    n[refusedOrigin].Load(),
		Full:      n[refusedFull].Load(),
		ClientID:  n[refusedClientID].Load(),
		Timeout:   n[refusedTimeout].Load(),
		Stopped:   n[refusedStopped].Load(),
		Failed:    n[refusedFailed].Load(),
	}
}

// Total is the sum of all reasons.
func (c *RefusalCounts) Total() (n uint64) {
	n += c.Auth
	n += c.Malformed
	n += c.Path
	n += c.Origin
	n += c.Full
	n += c.ClientID
	n += c.Timeout
	n += c.Stopped
	n += c.Failed
	return n
}

var managerFigures = []figure[Stats]{
	{Figure{Name: "clients", Help: "connected clients"}, func(st *Stats) float64 { return float64(st.Clients) }},
	{Figure{Name: "rooms", Help: "rooms, with and without members"}, func(st *Stats) float64 { return float64(st.Rooms) }},
	{Figure{Name: "handlers", Help: "registered handlers"}, func(st *Stats) float64 { return float64(st.Handlers) }},
	{Figure{Name: "waiting_tasks", Help: "clients whose messages wait for a worker"}, func(st *Stats) float64 { return float64(st.WaitingTasks) }},
	{Figure{Name: "dropped_events", Help: "events that the EventBus dropped since ResetDroppedEventCount"}, func(st *Stats) float64 { return float64(st.DroppedEvents) }},
	{Figure{Name: "rate_limited_total", Help: "messages refused by Config.RateLimit", Counter: true}, func(st *Stats) float64 { return float64(st.RateLimited) }},
	{Figure{Name: "unhandled_total", Help: "messages received without a handler: the client had hung up, or a close came first", Counter: true}, func(st *Stats) float64 { return float64(st.Unhandled) }},
	{Figure{Name: "late_handlers_total", Help: "calls of handlers that took longer than LogAfter", Counter: true}, func(st *Stats) float64 { return float64(st.LateHandlers) }},
	{Figure{Name: "inbound_memory_bytes", Help: "bytes that count against Config.InboundBudget; 0 without one"}, func(st *Stats) float64 { return float64(st.InboundMemory) }},
	{Figure{Name: "stuck", Help: "calls of Authenticate and CheckOrigin that outlast HandshakeTimeout or their client"}, func(st *Stats) float64 { return float64(st.Stuck) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "auth"}, func(st *Stats) float64 { return float64(st.Refused.Auth) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "malformed"}, func(st *Stats) float64 { return float64(st.Refused.Malformed) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "path"}, func(st *Stats) float64 { return float64(st.Refused.Path) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "origin"}, func(st *Stats) float64 { return float64(st.Refused.Origin) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "full"}, func(st *Stats) float64 { return float64(st.Refused.Full) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "client_id"}, func(st *Stats) float64 { return float64(st.Refused.ClientID) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "timeout"}, func(st *Stats) float64 { return float64(st.Refused.Timeout) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "stopped"}, func(st *Stats) float64 { return float64(st.Refused.Stopped) }},
	{Figure{Name: "refused_total", Help: "refused upgrade requests", Counter: true, Reason: "failed"}, func(st *Stats) float64 { return float64(st.Refused.Failed) }},
	{Figure{Name: "accept_descriptors_resting", Help: "connections wait"}, func(st *Stats) float64 { return boolFigure(st.Accept.Descriptors.Resting) }},
	{Figure{Name: "accept_descriptors_times_total", Help: "episodes of waiting; those less than 10 s apart are one", Counter: true}, func(st *Stats) float64 { return float64(st.Accept.Descriptors.Times) }},
	{Figure{Name: "accept_descriptors_seconds_total", Help: "total time during which connections waited", Counter: true}, func(st *Stats) float64 { return st.Accept.Descriptors.Time.Seconds() }},
	{Figure{Name: "accept_pace_resting", Help: "connections wait"}, func(st *Stats) float64 { return boolFigure(st.Accept.Pace.Resting) }},
	{Figure{Name: "accept_pace_times_total", Help: "episodes of waiting; those less than 10 s apart are one", Counter: true}, func(st *Stats) float64 { return float64(st.Accept.Pace.Times) }},
	{Figure{Name: "accept_pace_seconds_total", Help: "total time during which connections waited", Counter: true}, func(st *Stats) float64 { return st.Accept.Pace.Time.Seconds() }},
	{Figure{Name: "accept_upgrades", Help: "calls of HandleUpgrade that wait for their turn"}, func(st *Stats) float64 { return float64(st.Accept.Upgrades) }},
}

var loopFigures = []figure[LoopStats]{
	{Figure{Name: "loop_connections", Help: "sockets, those in the handshake included"}, func(st *LoopStats) float64 { return float64(st.Connections) }},
	{Figure{Name: "loop_opened_total", Help: "connections that finished the handshake", Counter: true}, func(st *LoopStats) float64 { return float64(st.Opened) }},
	{Figure{Name: "loop_closed_total", Help: "connections that finished the handshake and ended", Counter: true}, func(st *LoopStats) float64 { return float64(st.Closed) }},
	{Figure{Name: "loop_messages_in_total", Help: "data messages received", Counter: true}, func(st *LoopStats) float64 { return float64(st.MessagesIn) }},
	{Figure{Name: "loop_messages_out_total", Help: "data messages sent", Counter: true}, func(st *LoopStats) float64 { return float64(st.MessagesOut) }},
	{Figure{Name: "loop_bytes_in_total", Help: "bytes received", Counter: true}, func(st *LoopStats) float64 { return float64(st.BytesIn) }},
	{Figure{Name: "loop_bytes_out_total", Help: "bytes sent", Counter: true}, func(st *LoopStats) float64 { return float64(st.BytesOut) }},
	{Figure{Name: "loop_writes_total", Help: "write and writev calls", Counter: true}, func(st *LoopStats) float64 { return float64(st.Writes) }},
	{Figure{Name: "loop_blocked_total", Help: "times a socket was full", Counter: true}, func(st *LoopStats) float64 { return float64(st.BlockedTotal) }},
	{Figure{Name: "loop_blocked", Help: "connections whose socket is full"}, func(st *LoopStats) float64 { return float64(st.Blocked) }},
	{Figure{Name: "loop_queued_memory_bytes", Help: "memory of the queues of blocked connections, for QueueBudget; a frame counts in each queue"}, func(st *LoopStats) float64 { return float64(st.QueuedMemory) }},
	{Figure{Name: "loop_slow", Help: "connections between OnSlow and OnDrain"}, func(st *LoopStats) float64 { return float64(st.Slow) }},
	{Figure{Name: "loop_paused", Help: "connections that are not read, so that their clients wait"}, func(st *LoopStats) float64 { return float64(st.Paused) }},
	{Figure{Name: "loop_budget_paused", Help: "connections paused for the InboundBudget; counted about four times a second"}, func(st *LoopStats) float64 { return float64(st.BudgetPaused) }},
	{Figure{Name: "loop_paused_total", Help: "times a connection was paused", Counter: true}, func(st *LoopStats) float64 { return float64(st.PausedTotal) }},
	{Figure{Name: "loop_held_bytes", Help: "bytes received of paused connections that are not decoded yet"}, func(st *LoopStats) float64 { return float64(st.HeldBytes) }},
	{Figure{Name: "loop_tasks_total", Help: "tasks run from the inbox", Counter: true}, func(st *LoopStats) float64 { return float64(st.Tasks) }},
	{Figure{Name: "loop_yields_total", Help: "turns cut short for fairness", Counter: true}, func(st *LoopStats) float64 { return float64(st.Yields) }},
	{Figure{Name: "loop_inbox_len", Help: "tasks waiting in the inbox"}, func(st *LoopStats) float64 { return float64(st.InboxLen) }},
	{Figure{Name: "loop_oldest_wait_seconds", Help: "least age of the oldest message that waits for a full socket; measured 4 times a second"}, func(st *LoopStats) float64 { return st.OldestWait.Seconds() }},
	{Figure{Name: "loop_wake_ups_total", Help: "times the loop was woken for its inbox", Counter: true}, func(st *LoopStats) float64 { return float64(st.WakeUps) }},
	{Figure{Name: "loop_drops_total", Help: "messages that were not sent", Counter: true, Reason: "full"}, func(st *LoopStats) float64 { return float64(st.Drops.Full) }},
	{Figure{Name: "loop_drops_total", Help: "messages that were not sent", Counter: true, Reason: "expired"}, func(st *LoopStats) float64 { return float64(st.Drops.Expired) }},
	{Figure{Name: "loop_drops_total", Help: "messages that were not sent", Counter: true, Reason: "conflated"}, func(st *LoopStats) float64 { return float64(st.Drops.Conflated) }},
	{Figure{Name: "loop_drops_total", Help: "messages that were not sent", Counter: true, Reason: "budget"}, func(st *LoopStats) float64 { return float64(st.Drops.Budget) }},
	{Figure{Name: "loop_drops_total", Help: "messages that were not sent", Counter: true, Reason: "closed"}, func(st *LoopStats) float64 { return float64(st.Drops.Closed) }},
}
