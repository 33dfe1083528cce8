package ws

import (
	"context"
	"log/slog"
)

// Broker carries messages between the nodes of a cluster, which are Managers in several processes
// with brokers that speak to the same server. A Broker serves one Manager: give it to WithBroker.
// It knows no rooms, no clients and no JSON, but topics and opaque bytes. The modules contrib/nats
// and contrib/redis have brokers; wstest.Hub is one for tests.
//
// The methods are called by the Manager only.
type Broker interface {
	// Start begins the link of the node, and returns at once. To connect, and to connect again, for
	// ever, until Close, is the work of the broker; it reports with BrokerNode.SetState. The
	// first state is down. An error is one of the configuration: Manager.Run returns it.
	Start(node BrokerNode) error
	// Publish hands msg, which is borrowed, to the nodes that subscribe to the topic, in the order of
	// the calls. It may wait while the link is slow. After an error the message is possibly lost.
	// From the end of a connection until the SetState(true, nil) of the next one, Publish
	// returns an error at once. The own node may get the message back: the Manager ignores its own.
	// One goroutine calls Publish.
	Publish(topic Topic, msg []byte) error
	// Subscribe and Unsubscribe change the set of topics; TopicAll, and TopicNode with the own ID,
	// always belong to it. The broker remembers the set, and restores it with each connection before
	// SetState(true, nil). Subscribe returns when the topics are effective at the server, or with an
	// error while there is no connection: then they become so with the next one. One
	// goroutine calls both, with up to some thousand topics at once, borrowed.
	Subscribe(topics []Topic) error
	Unsubscribe(topics []Topic) error
	// Close ends the link, after all that was published has been sent, for as long as ctx allows. A
	// Publish or Subscribe that still waits at the end of ctx returns an error. No method of the
	// BrokerNode is called after Close has returned.
	Close(ctx context.Context) error
}

// MessageLimiter is a Broker whose server bounds the size of a message. A publish beyond it returns
// ErrMessageTooLarge.
type MessageLimiter interface {
	// MaxMessage returns the size of the largest message that Publish takes, in bytes; 0 has no end. The
	// Manager calls it with each SetState(true, nil) and each heartbeat.
	MaxMessage() int
}

// BrokerNode is the Manager as its Broker calls it. Safe for concurrent use.
type BrokerNode interface {
	// ID returns the ID of the node: letters and digits, random, another one for each Manager.
	ID() string
	// Receive delivers a message, borrowed, of a topic that the node subscribes to. Messages of one
	// topic come in their order. It waits while the event loops have too much to do, for
	// BroadcastConfig.Timeout at most, and so holds up its caller.
	Receive(topic Topic, msg []byte)
	// ReceiveStored delivers a message of Topic{TopicHistory, room}: msg.Data is borrowed. Messages of
	// one room come in the order of their offsets. epoch names the history of the room. It waits as
	// Receive does. A HistoryBroker calls it.
	ReceiveStored(room, epoch string, msg StoredMessage)
	// Lost says that messages to this node are possibly lost, of these topics, borrowed; nil is all
	// topics. Call it before Receive of a later message of the topics.
	Lost(topics []Topic)
	// Unconfirmed says that messages that Publish has taken are possibly lost: the connection broke
	// before the server has confirmed them. The Manager informs the other nodes. topics, borrowed, are
	// those of the messages; nil is all. Call it before SetState(true, nil).
	Unconfirmed(topics []Topic)
	// SetState says whether the link is up, that is whether a message that is published now reaches
	// the other nodes, and the reason if it is down. Each SetState(true, nil) stands for a new
	// connection, and so for messages that are possibly lost before it: call it before Receive of
	// the connection's first message. A call with the state false again only changes the reason.
	SetState(up bool, err error)
	// Logger returns the logger of the Manager.
	Logger() *slog.Logger
}

// Topic is the address of a message between nodes. Comparable. Immutable.
type Topic struct {
	Kind TopicKind
	// Name is the name of the room or user, or the ID of the node: any bytes, also none, up to
	// RoomConfig.MaxRoomName for a room. A broker escapes the bytes that its server does not take.
	Name string
}

// TopicKind is the kind of a Topic.
type TopicKind uint8

// The kinds of topics.
const (
	TopicAll  TopicKind = iota // all nodes; without a name
	TopicRoom                  // the nodes with members of the room
	TopicUser                  // the nodes with devices of the user
	TopicNode                  // one node
	// TopicHistory is the topic of the stored messages of a room: the nodes subscribe to it, and
	// HistoryBroker.Append publishes to it.
	TopicHistory
)

// String returns "all", "room", "user", "node" or "history".
func (k TopicKind) String() string {
	if int(k) < len(topicKinds) {
		return topicKinds[k]
	}
	return "unknown"
}

var topicKinds = [...]string{
	TopicAll: "all", TopicRoom: "room", TopicUser: "user", TopicNode: "node", TopicHistory: "history",
}
