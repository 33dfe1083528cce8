package ws

import (
	"cmp"
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// DrainConfig configures Drain. A zero field has its default; a negative time is none.
type DrainConfig struct {
	// Grace is the time in which new connections are still accepted, although ReadyPath answers
	// 503 already: a load balancer needs it to notice. Default 5 s.
	Grace time.Duration
	// Window is the time in which the clients get their slots, one after the other. With a
	// negative one, all get them at once. Default 60 s.
	Window time.Duration
	// Code is the close code. Default 1012, "service restart".
	Code int
	// Settle is the time that a client of WithReconnectNotice has from its notice on to open
	// its new connection and to close the old one. Then the old one is closed. The client is
	// not pinged meanwhile. With a negative Settle nobody gets a notice. Default 5 s.
	Settle time.Duration
	// RetrySpread bounds the random retry_ms in the close reason: {"retry_ms":840}. Default
	// 1 s.
	RetrySpread time.Duration
}

// The defaults of DrainConfig.
const (
	defaultGrace       = 5 * time.Second
	defaultWindow      = time.Minute
	defaultSettle      = 5 * time.Second
	defaultRetrySpread = time.Second
)

// plan returns the plan of the engine for c, or an error that wraps ErrInvalidConfig.
func (c DrainConfig) plan(m *Manager) (engine.DrainPlan, error) {
	if c.Code < 0 || c.Code >= 1<<16 || c.Code != 0 && !codec.CloseCode(c.Code).Valid() {
		return engine.DrainPlan{}, invalid("DrainConfig.Code", strconv.Itoa(c.Code)+" must not be sent")
	}
	return engine.DrainPlan{
		Grace:      max(0, cmp.Or(c.Grace, defaultGrace)),
		Window:     cmp.Or(c.Window, defaultWindow),
		Retirement: c.retirement(m),
	}, nil
}

// retirement returns the part of the plan for one connection.
func (c DrainConfig) retirement(m *Manager) engine.Retirement {
	spread := cmp.Or(c.RetrySpread, defaultRetrySpread)
	return engine.Retirement{
		Settle: cmp.Or(c.Settle, defaultSettle),
		Code:   codec.CloseCode(cmp.Or(c.Code, CloseServiceRestart)),
		Reason: func() string { return retryWithin(spread) },
		Notice: m.noticeFor,
	}
}

// Drain moves the clients to other servers, at a pace that these can take, and returns when
// none is left. Shutdown follows it:
//
//	err := m.Drain(ctx, ws.DrainConfig{})
//	err = m.Shutdown(ctx)
//
// Drain has five steps:
//
//  1. ReadyPath answers 503 from now on. For Grace new clients are still accepted; then they
//     are refused with 503, as during Shutdown.
//  2. Each client gets a slot: Window is divided evenly among the clients that are connected
//     at the end of Grace. Clients that leave by themselves do not change the pace.
//  3. At its slot, a client of WithReconnectNotice gets a notice of high priority, and has
//     Settle to open its new connection and then to close the old one. So it always has a
//     connection.
//  4. The other clients, and those that have not closed after Settle, are closed with Code,
//     behind the answers to the messages that they have sent (for CloseTimeout at most) and
//     behind all that is queued for them. The reason is {"retry_ms":n}: the client should
//     connect again after n milliseconds. What a client sends before its own close frame is
//     handled; what comes behind our close frame cannot be answered any more.
//  5. If ctx ends, Drain closes the rest at once, with Code and a reason each, and returns
//     the error of ctx.
//
// The notice is a message like
//
//	{"type":"notify","event":"ws.reconnect","data":{"retry_ms":0,"resume":true},"timestamp":1764201600}
//
// Rooms, handlers and publishing go on until Shutdown. DrainStats describes the progress.
// Later calls have no effect on the plan and wait for the same end; if the context of one of
// them ends first, it ends the drain for all. Before Run, Drain refuses all clients from then
// on and returns nil at once. It returns ErrManagerStopped if Shutdown has begun, or begins
// meanwhile, and an error that wraps ErrInvalidConfig for a Code that must not be sent.
// A handler must not call it, because it waits. Safe for concurrent use.
func (m *Manager) Drain(ctx context.Context, cfg DrainConfig) error {
	plan, err := cfg.plan(m)
	if err != nil {
		return err
	}
	if err := m.stopped(); err != nil {
		return err
	}
	m.engine.BeginDrain(plan)
	poll := time.NewTicker(drainPoll) // as for the end of Shutdown: it happens once in a manager's life
	defer poll.Stop()
	for !m.isDrained() {
		select {
		case <-ctx.Done():
			m.engine.ForceDrain()
			return ctx.Err()
		case <-m.stopping:
			return ErrManagerStopped
		case <-poll.C:
		}
	}
	return nil
}

// drainPoll is the time between two looks at the end of Drain.
const drainPoll = 5 * time.Millisecond

// isDrained reports whether no client is left and no more can come.
func (m *Manager) isDrained() bool {
	return m.engine.DrainPhase() == engine.DrainPaced && m.clients.admitted.Load() == 0
}

// isDraining reports whether Drain or Shutdown has begun.
func (m *Manager) isDraining() bool {
	return m.engine.DrainPhase() != engine.DrainNone || m.stopped() != nil
}

// refusing returns ErrManagerStopped once new clients are refused, because Shutdown has begun or
// the Grace of Drain is over.
func (m *Manager) refusing() error {
	if m.engine.DrainPhase() == engine.DrainPaced {
		return ErrManagerStopped
	}
	return m.stopped()
}

// DrainPhase is the state of a drain.
type DrainPhase uint8

// The phases, in order.
const (
	DrainNone  DrainPhase = iota // Drain was not called
	DrainGrace                   // new clients are still accepted
	DrainSlots                   // new clients are refused, and the others get their slots
	DrainDone                    // no client is left
)

// String returns "none", "grace", "slots" or "done".
func (p DrainPhase) String() string {
	return [...]string{"none", "grace", "slots", "done"}[p]
}

// MarshalText returns String.
func (p DrainPhase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// DrainStats describes the progress of Drain. Total is the sum of Moved, Closed, Forced, Left
// and Remaining.
type DrainStats struct {
	Phase     DrainPhase
	Total     int     // clients that were connected when Drain began, or came later
	Moved     int     // clients that left by themselves after the notice
	Closed    int     // clients that Drain closed at their slot, or after Settle
	Forced    int     // clients that were closed at once, because the context of Drain or Shutdown came first
	Left      int     // clients that left by themselves without a notice
	Remaining int     // clients that are connected
	Pace      float64 // slots each second; 0 during the Grace, and if all come at once
}

// DrainStats returns a snapshot, the zero value before Drain. It takes no lock.
func (m *Manager) DrainStats() DrainStats {
	phase := DrainPhase(m.engine.DrainPhase())
	if phase == DrainNone {
		return DrainStats{}
	}
	var total LoopStats
	for _, s := range m.engine.Shards() {
		loop := loopStats(s.Stats())
		total.Add(&loop)
	}
	if phase == DrainSlots && m.isDrained() {
		phase = DrainDone
	}
	st := DrainStats{
		Phase: phase, Moved: int(total.DrainMoved), Closed: int(total.DrainClosed), Forced: int(total.DrainForced),
		Left: int(total.DrainLeft), Remaining: max(0, int(total.Opened-total.Closed)), Pace: m.engine.DrainPace(),
	}
	st.Total = st.Moved + st.Closed + st.Forced + st.Left + st.Remaining
	return st
}

// WithReconnectNotice says that the client understands the event ws.reconnect: it opens a new
// connection when it reads it, and then closes the old one. See Drain. WithAuthenticate returns
// this option, for example if the client says so in its request, or HandleUpgrade takes it.
func WithReconnectNotice() ClientOption { return func(o *clientOptions) { o.traits |= noticed } }

// noticeFor returns the notice for a connection, nil if its client does not understand one.
func (m *Manager) noticeFor(conn *engine.Conn) *engine.Frame {
	if ownerOf(conn).traits&noticed == 0 {
		return nil
	}
	return m.notices.at(time.Now().Unix())
}

// notices holds the notice of the current second, encoded once for all clients. Safe for
// concurrent use.
type notices struct{ last atomic.Pointer[notice] }

// notice is a ws.reconnect with its timestamp. Immutable.
type notice struct {
	second int64
	frame  *engine.Frame
}

// at returns the notice of a second.
func (n *notices) at(second int64) *engine.Frame {
	if last := n.last.Load(); last != nil && last.second == second {
		return last.frame
	}
	text := `{"type":"notify","event":"ws.reconnect","data":{"retry_ms":0,"resume":true},"timestamp":` +
		strconv.FormatInt(second, 10) + `}`
	next := &notice{second, newFrame(OpText, []byte(text), engine.Handling{Lane: engine.LaneHigh})}
	n.last.Store(next)
	return next.frame
}
