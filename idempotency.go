package ws

import (
	"context"
	"time"

	"github.com/qi-realtime/ws/internal/idempotency"
	"github.com/qi-realtime/ws/router"
)

// Idempotency keeps the first replies to requests, so that a client that has lost its connection
// can repeat a request without harm: the handler runs once. docs/idempotency.md has the whole
// contract.
//
// It concerns requests with the field "idempotent":true and a request_id. A repeat has the same
// request_id, event and data, byte for byte, and comes from the same user: the user of WithUser
// or WithUserID, or, without a user, the ID of WithClientID. Other clients have no name that
// outlasts their connection, so their requests are handled like any other, and counted in
// IdempotencyStats.Unkept. All connections of a user share the request_ids, so a client
// draws them at random. The ID of WithClientID must be as hard to take over as a user's name.
//
// A repeat of a request that still runs waits for its reply: each connection that has asked gets
// it once. Every reply of a handler is kept, also an error and the 500 of a panic, because the
// handler may have done a part of its work; a client that wants to try again sends a new
// request_id. Refusals before the handler are not kept: those of RateLimit and of a
// middleware. Middleware runs for repeats, too. A repeat with another event or other data gets
// code 422, and a repeat whose first reply was too large to keep gets code 410.
//
// While the handler of an idempotent request runs, Client.Context does not end with the
// connection. A handler that answers with Client.SendResponse or SendError uses the Client and
// the request_id that it was given, now or later on another goroutine. If it answers in another
// way or not at all, repeats get no answer until the window ends.
//
// The replies are in the memory of this process: a repeat that reaches another server, or comes
// after a restart, runs the handler again. Immutable after New.
type Idempotency struct {
	// Window is the time for which a reply is kept. It should exceed the time for which a
	// client tries to connect again. 0, the default, is off; 1 s is the least.
	Window time.Duration
	// Bytes bounds the memory of the kept replies, with 512 bytes more for each request.
	// Beyond it old replies are given up before the end of the window, and counted in
	// IdempotencyStats.Evicted: a repeat runs the handler again then. If that gives no
	// space, because too many requests are unanswered, a new request gets code 503 and is
	// not handled. Default 64 MiB.
	Bytes int64
	// PerUser bounds the part of one user in the same way. A larger reply is not kept.
	// Default 1 MiB.
	PerUser int64
}

// settings are the rows of the table of settings.
func (i *Idempotency) settings() []setting {
	return []setting{
		minimum("Idempotency.Window", &i.Window, 0, 0),
		rule("Idempotency.Window", "must be 0 or at least 1 s",
			func() bool { return i.Window == 0 || i.Window >= time.Second }),
		minimum("Idempotency.Bytes", &i.Bytes, 64<<20, 1<<10),
		minimum("Idempotency.PerUser", &i.PerUser, 1<<20, 1<<10),
		rule("Idempotency.PerUser", "must be at most Idempotency.Bytes", func() bool { return i.PerUser <= i.Bytes }),
	}
}

// newTable returns the table of replies, nil if it is off.
func (i *Idempotency) newTable() *idempotency.Table[*Client] {
	if i.Window == 0 {
		return nil
	}
	return idempotency.New[*Client](idempotency.Config{Window: i.Window, Bytes: i.Bytes, PerOwner: i.PerUser})
}

// maxExpiryInterval is the longest time between two removals of replies whose window has ended.
const maxExpiryInterval = 15 * time.Second

// ticks returns the times at which replies are removed, and the function that ends them.
func (i *Idempotency) ticks() (ticks <-chan time.Time, stop func()) {
	if i.Window == 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(min(i.Window/4, maxExpiryInterval))
	return ticker.C, ticker.Stop
}

func (m *Manager) idempotencyStats() IdempotencyStats {
	if m.replies == nil {
		return IdempotencyStats{}
	}
	st := m.replies.Stats()
	return IdempotencyStats{
		Requests: int(st.Requests), Bytes: st.Bytes, Repeats: st.Repeats, Evicted: st.Evicted,
		Differed: st.Differed, Refused: st.Refused, Unkept: m.unkept.Load(),
	}
}

// onceRequest is an idempotent request that is handled, or a repeat. Only the goroutine of its
// message touches it.
type onceRequest struct {
	handler   router.Handler[*Client, *Message]
	owner, id string
	sum       uint64                      // of the event and data that the client has sent
	repeats   bool                        // it is a repeat of another request
	entry     *idempotency.Entry[*Client] // nil until the handler runs
}

// once makes msg an idempotent request, and returns the handler to run in place of h. The
// handler decides, because it is inside the middleware, which may refuse the request.
func (c *Client) once(msg *Message, h router.Handler[*Client, *Message]) router.Handler[*Client, *Message] {
	if msg.Type != TypeRequest {
		return h
	}
	owner := c.owner()
	if owner == "" || msg.RequestID == "" {
		c.manager.unkept.Add(1)
		return h
	}
	msg.once = &onceRequest{
		handler: h, owner: owner, id: msg.RequestID, sum: c.manager.replies.Sum(msg.Event, msg.Data),
	}
	return handleOnce
}

// owner returns the name under which the replies to the client's requests are kept, "" for a
// client without one.
func (c *Client) owner() string {
	if u := c.User(); u != "" {
		return "user:" + u
	}
	if c.traits&named != 0 {
		return "client:" + c.ID
	}
	return ""
}

var (
	errDiffers = NewClientError(422, "request_id belongs to another request")
	errLost    = NewClientError(410, "the reply was too large to keep")
	errCrowded = NewClientError(503, "too many idempotent requests")
)

// handleOnce runs the handler of an idempotent request, unless it is a repeat.
func handleOnce(c *Client, msg *Message) error {
	x := msg.once
	if x.repeats { // a middleware calls next again
		return nil
	}
	if x.entry == nil {
		if err := c.begin(x); err != nil || x.repeats {
			return err
		}
	}
	c.beginWork()
	defer c.endWork()
	return x.handler(c, msg)
}

// begin finds out whether x is a repeat, and answers a repeat whose first reply is there.
func (c *Client) begin(x *onceRequest) error {
	m := c.manager
	entry, reply, outcome := m.replies.Begin(m.engine.Clock(), x.owner, x.id, x.sum, c)
	x.entry, x.repeats = entry, outcome != idempotency.Run
	switch outcome {
	case idempotency.Run, idempotency.Wait:
	case idempotency.Replay:
		c.deliverAnswer(reply)
	case idempotency.Differs:
		return errDiffers
	case idempotency.Gone:
		return errLost
	case idempotency.Full:
		return errCrowded
	}
	return nil
}

// keep stores the reply to an idempotent request, unless it is a repeat or a middleware has
// refused it, and sends it to the other connections that wait for it.
func (c *Client) keep(x *onceRequest, reply []byte) {
	if x.entry == nil {
		return
	}
	waiting, _ := c.manager.replies.Finish(c.manager.engine.Clock(), x.entry, reply)
	deliverTo(waiting, reply)
}

// keepLate is keep for a reply of SendResponse, if it is the first reply to an idempotent request.
func (c *Client) keepLate(requestID string, reply []byte) {
	m := c.manager
	owner := c.owner()
	if owner == "" || requestID == "" {
		return
	}
	waiting, _ := m.replies.FinishOf(m.engine.Clock(), owner, requestID, c, reply)
	deliverTo(waiting, reply)
}

func deliverTo(waiting []*Client, reply []byte) {
	for _, c := range waiting {
		c.deliverAnswer(reply)
	}
}

// leave notes that the handler of an idempotent request has returned.
func (m *Manager) leave(x *onceRequest) {
	if x.entry != nil {
		m.replies.Leave(m.engine.Clock(), x.entry)
	}
}

// beginWork keeps the client's context from ending with the connection.
func (c *Client) beginWork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending |= working
}

// endWork lets the client's context end with the connection again, or ends it if the connection
// has ended meanwhile.
func (c *Client) endWork() {
	c.mu.Lock()
	c.ending &^= working
	var cancel context.CancelFunc
	if c.ending&gone != 0 && c.lazy != nil {
		cancel = c.takeCancelLocked()
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// takeCancelLocked returns the function that ends the context of a client whose connection has
// ended, and forgets the context. It returns nil if there is none, or if it must not end yet.
// c.lazy is not nil.
func (c *Client) takeCancelLocked() (cancel context.CancelFunc) {
	if x := c.lazy; c.ending&working == 0 {
		cancel = x.cancel
		x.ctx, x.cancel = nil, nil
	}
	c.dropLazyLocked()
	return cancel
}
