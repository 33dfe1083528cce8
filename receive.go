package ws

import (
	"context"
	"errors"
	"log/slog"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/cluster"
)

// brokerNode is the node as its broker calls it (BrokerNode).
type brokerNode struct{ *node }

// ID returns the ID of the node.
func (n brokerNode) ID() string { return n.id }

// Logger returns the logger of the Manager.
func (n brokerNode) Logger() *slog.Logger { return n.manager.cfg.Logger }

// SetState notes whether the link is up.
func (n brokerNode) SetState(up bool, err error) {
	if up {
		n.askLimit()
		n.peers.connected()
		n.numbers.watch.Reset()
		n.loseAll()
		n.repeat.Store(true)
		n.renewed.Store(true)
		n.interest.Wake()
		n.greet.Store(true)
	}
	before := n.up.Swap(up)
	n.link.Wake()
	if up {
		n.manager.presences.linkUp()
	} else {
		n.endSubscribing(nil)
	}
	switch logger := n.Logger(); {
	case up:
		logger.Info("ws: the link to the broker is up", slog.String("node", n.id))
	case before:
		logger.Warn("ws: the link to the broker is down", slog.String("node", n.id), slog.Any("error", err))
	}
}

// Unconfirmed notes that messages of this node are possibly lost.
func (n brokerNode) Unconfirmed(topics []Topic) {
	if topics == nil {
		n.owed.AddAll()
		n.owesNow.Store(true)
		n.link.Wake()
	}
	for _, topic := range topics {
		n.oweNow(topic)
	}
}

// Receive handles a message of another node.
func (n brokerNode) Receive(topic Topic, msg []byte) {
	var in cluster.Message
	if in.Decode(msg) != nil {
		n.counts.malformed.Add(1)
		return
	}
	if string(in.Origin) == n.id {
		return
	}
	n.counts.received.Add(1)
	defer n.syncs.flights.End(n.syncs.flights.Begin())
	n.noteNumber(topic, &in)
	switch in.Kind {
	case cluster.Publish:
		n.deliver(topic, &in)
	case cluster.Lost:
		n.loseNow(topic)
	case cluster.LostAll:
		n.loseAll()
	case cluster.Sum: // noteNumber
	case cluster.Delete:
		n.delete(topic, string(in.Payload))
	case cluster.Disconnect:
		n.disconnect(topic, in.Payload)
	case cluster.Beat:
		n.noteBeat(string(in.Origin), in.Payload)
	case cluster.Bye:
		n.peers.remove(string(in.Origin))
		n.manager.presences.stopped(string(in.Origin))
	case cluster.Presence, cluster.PresencePage, cluster.PresenceAsk:
		n.manager.presences.receive(topic, &in)
	case cluster.SyncAsk:
		n.noteSyncAsk(string(in.Origin), in.Payload)
	case cluster.Synced:
		n.noteSynced(string(in.Origin), in.Payload)
	case cluster.Stored: // it comes to ReceiveStored only
		n.counts.malformed.Add(1)
	}
}

// deliver publishes a message of another node to the clients of this one.
func (n *node) deliver(topic Topic, in *cluster.Message) {
	p := &publication{payload: in.Payload, received: true}
	p.op, p.TTL, p.Key = OpText, in.TTL, string(in.Key)
	if in.Binary {
		p.op = OpBinary
	}
	if in.High {
		p.Lane = engine.LaneHigh
	}
	if len(in.Exclude) > 0 {
		p.exclude, _ = n.manager.GetClient(string(in.Exclude))
	}
	err := n.deliverTo(topic, p)
	switch {
	case err == nil, errors.Is(err, ErrManagerStopped):
	case errors.Is(err, errUnwanted):
		n.counts.unwanted.Add(1)
	default: // an event loop is held, or has too much to do
		n.counts.undelivered.Add(1)
		n.lose(topic)
	}
}

// errUnwanted says that this node has no client for a message.
var errUnwanted = errors.New("ws: no client for the message")

// deliverTo publishes to the clients of the topic, behind the gap that they have yet to learn of.
func (n *node) deliverTo(topic Topic, p *publication) error {
	m, ctx := n.manager, context.Background()
	switch topic.Kind {
	case TopicRoom:
		r, ok := m.rooms.Get(topic.Name)
		if !ok || r.Len() == 0 {
			return errUnwanted
		}
		r.Data().notePlain()
		if err := n.reportTo(r); err != nil {
			return err
		}
		_, err := m.publishIn(ctx, r, p)
		return err
	case TopicUser:
		if err := n.reportToAll(); err != nil {
			return err
		}
		_, err := m.publishToUser(userNamed(topic.Name), p)
		return err
	case TopicAll:
		if err := n.reportToAll(); err != nil {
			return err
		}
		_, err := m.publish(ctx, p)
		return err
	case TopicNode, TopicHistory:
	}
	return errUnwanted
}

// delete ends a room that another node has deleted: one with members by a message of its own topic,
// behind its messages, and an empty one by a message to all nodes.
func (n *node) delete(topic Topic, id string) {
	m := n.manager
	switch topic.Kind {
	case TopicRoom:
		m.deleteHere(topic.Name)
	case TopicNode:
		if r, ok := m.rooms.Get(id); ok && m.rooms.EndKeptIfEmpty(r) {
			m.histories.end(r.Data().history)
			m.roomChanged(id)
		}
	case TopicAll, TopicUser, TopicHistory:
	}
}

// disconnect closes the devices of a user.
func (n *node) disconnect(topic Topic, payload []byte) {
	code, reason, ok := cluster.CutClose(payload)
	if !ok || topic.Kind != TopicUser {
		n.counts.malformed.Add(1)
		return
	}
	for _, c := range n.manager.UserClients(topic.Name) {
		c.CloseWithCode(int(code), reason)
	}
}
