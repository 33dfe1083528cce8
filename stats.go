package ws

import "github.com/qi-realtime/ws/engine"

// LoopStats counts what one event loop has done since Run. Its fields are
// described where they are defined.
type LoopStats = engine.ShardStats

// DropCounts says how many messages clients did not get, by reason. Its fields
// are described where they are defined.
type DropCounts = engine.DropCounts

// Stats is a snapshot of a Manager.
type Stats struct {
	Clients       int         // connected
	Rooms         int         // with and without members
	Handlers      int         // registered
	WaitingTasks  int         // clients whose messages wait for a worker
	DroppedEvents int64       // see EventBus
	RateLimited   uint64      // messages refused by Config.RateLimit
	Unhandled     uint64      // messages received that no handler got: the client hung up, or CloseWithCode or Shutdown came first
	LateHandlers  uint64      // calls of handlers that took longer than LogAfter
	Inbound       int64       // bytes that count against Config.InboundBudget; 0 without one
	Stuck         int         // calls of Authenticate and CheckOrigin that go on after HandshakeTimeout, or though their client has gone
	Accept        AcceptStats // how new connections are let in
	Loops         []LoopStats // one for each event loop
	Total         LoopStats   // their sum; of OldestWait, the maximum
}

// Stats returns a snapshot: Total is the sum of Loops as they are in it. It
// takes no lock that a loop could wait for.
func (m *Manager) Stats() Stats {
	st := Stats{
		Clients: m.GetClientCount(), Rooms: m.rooms.Len(), Handlers: m.Router.routes.Len(),
		WaitingTasks: m.waitingTasks(), DroppedEvents: m.EventBus.GetDroppedEventCount(),
		RateLimited: m.rateLimited.Load(), Unhandled: m.unhandled.Load(), LateHandlers: m.late.count.Load(),
		Inbound: m.engine.Inbound(), Stuck: int(m.auth.stuck.Load()),
		Accept: m.engine.AcceptStats(),
	}
	for _, s := range m.engine.Shards() {
		loop := s.Stats()
		st.Loops = append(st.Loops, loop)
		st.Total.Add(&loop)
	}
	return st
}
