package ws

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Errors that callers test for with errors.Is.
var (
	// ErrTooManyConnections refuses a connection beyond Config.MaxConnections.
	ErrTooManyConnections = errors.New("ws: too many connections")
	// ErrClientIDExists refuses a connection whose WithClientID is taken.
	ErrClientIDExists = errors.New("ws: client ID exists")
	// ErrClientNotFound says that no connected client has the ID.
	ErrClientNotFound = errors.New("ws: client not found")
	// ErrConnectionClosed is returned for a client that is closed or closing.
	// It also matches net.ErrClosed.
	ErrConnectionClosed = engine.ErrClosed
	// ErrRoomNotFound says that there is no room of that ID.
	ErrRoomNotFound = errors.New("ws: room not found")
	// ErrRoomExists is returned by CreateRoom for an ID that is taken.
	ErrRoomExists = errors.New("ws: room exists")
	// ErrRoomFull refuses a member beyond RoomConfig.MaxRoomSize.
	ErrRoomFull = errors.New("ws: room full")
	// ErrTooManyRooms is returned by JoinRoom for a client that is in
	// RoomConfig.MaxRoomsPerClient rooms.
	ErrTooManyRooms = errors.New("ws: too many rooms")
	// ErrInvalidRoom is returned for a room whose ID is longer than
	// RoomConfig.MaxRoomName.
	ErrInvalidRoom = errors.New("ws: room ID too long")
	// ErrAlreadyInRoom is returned by JoinRoom for a member of the room.
	ErrAlreadyInRoom = errors.New("ws: already in room")
	// ErrForbidden refuses a client that joins the inbox of another user.
	ErrForbidden = errors.New("ws: forbidden")
	// ErrNoPresence is returned by RoomPresence for a room without WithPresence.
	ErrNoPresence = errors.New("ws: room without presence")
	// ErrNoInbox is returned for the inbox of the user "", and by PublishToInbox without WithInbox.
	ErrNoInbox = errors.New("ws: no inbox")
	// ErrInvalidAck refuses an acknowledgement of a message that the client was not sent.
	ErrInvalidAck = errors.New("ws: invalid ack")
	// ErrTooManyDevices refuses a device beyond Inbox.MaxDevices while all others are connected.
	ErrTooManyDevices = errors.New("ws: too many devices")
	// ErrInvalidDevice refuses a device whose name is longer than 128 bytes.
	ErrInvalidDevice = errors.New("ws: device name too long")
	// ErrPositionLost refuses a join with Since.Strict whose messages are not all kept.
	ErrPositionLost = errors.New("ws: position lost")
	// ErrHistoryOption refuses a message of a room with a history that has Exclude, a
	// ConflateKey, a TTL or HighPriority: each member gets all of these messages in one order.
	ErrHistoryOption = errors.New("ws: message option does not fit a history")
	// ErrHandlerNotFound says that no handler is registered for an event.
	ErrHandlerNotFound = errors.New("ws: handler not found")
	// ErrHandlerExists is returned when an event has a handler already.
	ErrHandlerExists = errors.New("ws: handler exists")
	// ErrRouterFrozen is returned by Register and Use after Router.Freeze.
	ErrRouterFrozen = errors.New("ws: router frozen")
	// ErrInvalidMessage says that a message is not a valid envelope.
	ErrInvalidMessage = errors.New("ws: invalid message")
	// ErrInvalidMessageType says that a client may not send messages of this type or
	// opcode, such as a binary message without HandleBinary.
	ErrInvalidMessageType = errors.New("ws: invalid message type")
	// ErrMessageTooLarge says that a message is beyond Config.MessageSizeLimit. A publish returns it for
	// one that the server of the Broker does not take; nobody gets it.
	ErrMessageTooLarge = codec.ErrMessageTooLarge
	// ErrChannelFull is returned when a client's outbound queue is at a bound and
	// its socket is full, or to a handler on an event loop that has posted too much
	// to a full ring within one message; see BroadcastToRoom. Nothing was queued.
	ErrChannelFull = engine.ErrQueueFull
	// ErrBroadcastTimeout is returned when a loop's ring stayed full for
	// BroadcastConfig.Timeout. Nothing was published.
	ErrBroadcastTimeout = engine.ErrTimeout
	// ErrBrokerUnavailable is returned at once by a publish while the link to the broker is down,
	// or its queue full. Nobody gets the message. See WithBroker.
	ErrBrokerUnavailable = errors.New("ws: broker unavailable")
	// ErrOnEventLoop is returned to a handler on an event loop (Inline) by PublishEvent,
	// JoinRoom, JoinRoomFrom and RoomPosition if they would have to wait for the store of a
	// HistoryBroker: call them on another goroutine.
	ErrOnEventLoop = errors.New("ws: would wait on an event loop")
	// ErrNoFlightRecorder is returned by WriteTrace without a Config.FlightRecorder, or while
	// it does not run.
	ErrNoFlightRecorder = errors.New("ws: no flight recorder runs")
	// ErrInvalidConfig says that a setting is out of range. The error that wraps it
	// names the field.
	ErrInvalidConfig = errors.New("ws: invalid config")
	// ErrManagerStopped is returned after Shutdown, or when Run was never
	// called, and to clients that come after the Grace of Drain.
	ErrManagerStopped = engine.ErrStopped
)

// HandshakeError refuses an upgrade with an HTTP status. Return one from
// WithAuthenticate; Reason is the response's body. Immutable after New.
type HandshakeError struct {
	Status int
	Reason string
	Header http.Header // added to the response; may be nil
	Err    error       // HandleUpgrade's error unwraps to it; may be nil

	why refusalReason
}

// Error quotes the reason, which may hold text of the request.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("ws: handshake refused with status %d: %q", e.Status, e.Reason)
}

func (e *HandshakeError) Unwrap() error { return e.Err }

// CloseError says how a connection ended. It is the Data of
// EventClientDisconnected. Immutable after New.
type CloseError struct {
	// Code and Reason are those of the first close frame, of either side; code 1006
	// if there was none.
	Code   int
	Reason string
	// Remote reports whether the client closed first.
	Remote bool
	// Rooms are the IDs of the rooms that the client was in.
	Rooms []string
	// Err is the network or protocol error behind it, if there is one.
	Err error
}

// Error quotes the reason, which may be the client's.
func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("ws: closed with code %d", e.Code)
	}
	return fmt.Sprintf("ws: closed with code %d: %q", e.Code, e.Reason)
}

func (e *CloseError) Unwrap() error { return e.Err }
