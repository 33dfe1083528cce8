package ws

import (
	"context"
	"time"
)

// HistoryBroker is a Broker that also stores the histories of rooms: WithHistory works with it.
// Its methods are safe for concurrent use. While the link is down they return an error at once
// that wraps ErrBrokerUnavailable, and they return an error when ctx ends.
type HistoryBroker interface {
	Broker
	// Append stores msg, borrowed, as the newest message of the room's history, and hands it to the
	// nodes that subscribe to Topic{TopicHistory, room}, the own node included, with
	// BrokerNode.ReceiveStored, in the order of the offsets. It returns the position of the
	// message. After an error the message is possibly stored. keep, with its defaults filled in, says
	// how much the store has to keep of the room at least; it may keep more. A negative Bytes or TTL
	// is no limit.
	Append(ctx context.Context, room string, msg []byte, keep History) (Position, error)
	// Read returns stored messages of the room with offsets above after, oldest first: as many as one
	// answer of the store holds, at least one if there is one, and limit at most.
	Read(ctx context.Context, room string, after uint64, limit int) (HistoryPage, error)
	// Heads returns the position of the newest message of each room, in the order of rooms, up to some
	// thousand: offset 0 for a room that never had one.
	Heads(ctx context.Context, rooms []string) ([]Position, error)
	// Forget removes the history of the room. The next message has another epoch, or an offset that
	// is greater than all before.
	Forget(ctx context.Context, room string) error
}

// StoredMessage is a message of a history. The offsets of a room grow, may have holes, and are
// below 1<<53.
type StoredMessage struct {
	Offset uint64
	// Prev is the offset of the message before it in the room, 0 if there is none. ReceiveStored needs
	// it; in a HistoryPage the messages follow each other.
	Prev uint64
	// Age is the time since the message was stored, 0 for one that comes at once.
	Age  time.Duration
	Data []byte
}

// HistoryPage is a part of a history.
type HistoryPage struct {
	Epoch string
	// Base is the offset behind which nothing is missing: between it and the first message there was
	// never another one. If it is above the offset that was asked for, the messages between the two
	// are possibly lost.
	Base     uint64
	Messages []StoredMessage // owned
	// Top is the offset of the newest message of the room as of this answer, 0 if there was
	// never one. Without Messages, Base equals Top, and nothing follows.
	Top uint64
}
