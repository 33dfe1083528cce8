package ws

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/pool"
)

// HandleJoin registers handlers of the events ws.join and ws.leave, by which clients join rooms
// from a position; of ws.ack, see Inbox; of ws.presence, see WithPresence; of ws.ping, by which a client
// finds out whether its connection still works: the response has no data; and of ws.sync, whose response,
// without data, comes behind all messages for the client that were published before, on any node of a
// cluster, or behind a gap. A client that moves to another connection uses it; eight may wait, and another one
// gets code 429.
//
// authorize decides, for each join, whether the client may be in the room, and
// returns the options with which a missing room is created. The client reads its error as it
// reads the error of a Handler. It runs where the handlers run, see RouteOption. HandleJoin returns the
// errors of Register, and ErrInvalidConfig for a nil authorize. The request and its response are
//
//	{"type":"request","event":"ws.join","request_id":"7","data":{"room":"r1","since":{"epoch":"k3Q9","offset":1041}}}
//	{"type":"response","request_id":"7","code":200,"message":"success",
//	  "data":{"room":"r1","epoch":"k3Q9","offset":1063,"replaying":22}}
//
// In place of since, "last":n asks for the newest n messages; "strict":true asks for an error with
// code 409 in place of a gap. "device":"phone" names the device in an inbox.
// "presence":{"epoch":"Zk3P","version":7} names the list of the room's users that the client has, see
// Since. A client that joins the inbox of another user gets code 403, and authorize is not called. The
// response comes before the first message of the room. It has only the room if that has no history.
// On a node of a cluster it comes when the messages of the other nodes reach the room: the first
// join of a room on the node waits for the subscription, for 5 s at most. docs/delivery.md describes
// the messages.
func HandleJoin(m *Manager, authorize func(c *Client, room string) ([]RoomOption, error), opts ...RouteOption) error {
	if authorize == nil {
		return invalid("HandleJoin", "authorize must not be nil")
	}
	join := func(c *Client, msg *Message) error {
		req, err := decode[joinRequest](msg)
		if err != nil {
			return err
		}
		if err := req.check(); err != nil {
			return err
		}
		if err := c.mayEnter(req.Room, req.Device); err != nil {
			return err
		}
		options, err := authorize(c, req.Room)
		if err != nil {
			return err
		}
		_, err = c.joinRoom(req.Room, &entering{
			since: req.since(), options: options, answer: newJoinAnswer(msg), later: lateAnswer(c, msg),
		})
		if errors.Is(err, errWaits) {
			return nil
		}
		return err
	}
	leave := func(c *Client, req *leaveRequest) error {
		c.LeaveRoom(req.Room)
		return nil
	}
	if err := m.Register(eventJoin, join, opts...); err != nil {
		return err
	}
	if err := Handle0(m, eventLeave, leave, opts...); err != nil {
		return err
	}
	if err := m.Register(eventAck, handleAck, opts...); err != nil {
		return err
	}
	if err := m.Register(eventPresence, answerPresence, opts...); err != nil {
		return err
	}
	if err := m.Register(eventSync, answerSync, opts...); err != nil {
		return err
	}
	return m.Register(eventPing, answerPing, opts...)
}

// answerPing is the handler of ws.ping, with any data.
func answerPing(c *Client, msg *Message) error { return respond[struct{}](c, msg, nil) }

// joinRequest is the data of ws.join.
type joinRequest struct {
	Room   string    `json:"room"`
	Device string    `json:"device"`
	Since  *Position `json:"since"`
	Last   int       `json:"last"`
	Strict bool      `json:"strict"`

	Presence *PresenceVersion `json:"presence"`
}

// ackRequest is the data of ws.ack.
type ackRequest struct {
	Room   string  `json:"room"`
	Offset *uint64 `json:"offset"`
}

// handleAck is the handler of ws.ack. An invalid notification gets no answer.
func handleAck(c *Client, msg *Message) error {
	req, err := decode[ackRequest](msg)
	switch {
	case err != nil:
	case req.Offset == nil:
		err = NewClientError(400, "invalid data: offset is missing")
	default:
		err = c.Ack(req.Room, *req.Offset)
	}
	switch {
	case err == nil:
		return respond[struct{}](c, msg, nil)
	case msg.Type == TypeNotify:
		c.manager.metrics.IncrementInvalidMessages()
		return nil
	}
	return err
}

// leaveRequest is the data of ws.leave.
type leaveRequest struct {
	Room string `json:"room"`
}

func (r *joinRequest) check() error {
	switch {
	case r.Room == "":
		return NewClientError(400, "invalid data: room is missing")
	case r.Last < 0:
		return NewClientError(400, "invalid data: last must not be negative")
	case r.Since != nil && r.Since.Epoch == "":
		return NewClientError(400, "invalid data: since.epoch is missing")
	}
	return r.Presence.check()
}

func (r *joinRequest) since() Since {
	s := Since{Last: r.Last, Strict: r.Strict, Device: r.Device, Presence: r.Presence.orZero()}
	if r.Since != nil {
		s.Position = *r.Since
	}
	return s
}

// joinAnswer is the answer to a ws.join, without its data. Immutable.
type joinAnswer struct {
	requestID string
	trace     envelope.TraceID
}

// lateAnswer returns the function that answers msg with an error after its handler has returned; nil
// if no join has to wait.
func lateAnswer(c *Client, msg *Message) func(error) {
	if c.manager.node == nil {
		return nil
	}
	answered := &Message{Type: msg.Type, Event: eventJoin, RequestID: msg.RequestID, trace: msg.traceID()}
	return func(err error) {
		c.manager.metrics.IncrementMessageErrors(eventJoin)
		c.answerError(answered, err)
	}
}

// newJoinAnswer returns the answer to msg; nil for a notification, which gets none.
func newJoinAnswer(msg *Message) *joinAnswer {
	if msg.Type == TypeNotify {
		return nil
	}
	return &joinAnswer{msg.RequestID, msg.traceID()}
}

// sendInLoop sends the answer ahead of the messages of the room.
func (a *joinAnswer) sendInLoop(c *Client, room string, st *joinStart) {
	answer := joinResponse{Room: room}
	if st.position.Epoch != "" {
		answer.joinPlace = &joinPlace{st.position, st.replaying}
	}
	data, err := json.Marshal(answer)
	if err != nil {
		panic(fmt.Sprintf("ws: encode %T: %v", answer, err)) // never for this type
	}
	r := success(a.requestID, a.trace)
	r.Data = data
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.Append(buf.B[:0])
	_ = c.sent(c.conn.AnswerInLoop(codec.OpText, buf.B)) // fails only for a client that is closing
}

// joinResponse is the data of the answer.
type joinResponse struct {
	Room       string `json:"room"`
	*joinPlace        // nil for a room without a history
}

// joinPlace is the part of a joinResponse that rooms with a history have.
type joinPlace struct {
	Position
	Replaying int `json:"replaying"`
}
