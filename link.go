package ws

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/measure"
	"github.com/qi-realtime/ws/pool"
)

// outbound is a message that waits for the link.
type outbound struct {
	topic  Topic
	buffer *pool.Buffer
	size   int           // in the queue
	at     time.Duration // of the publication, on measure.Now
	owed   uint64        // count of node.owed at the publication
}

// outboundCost is the memory of an outbound message beside its bytes, about.
const outboundCost = 128

// publish publishes to the clients of this node and to the other nodes: to all, or to nobody. With
// LocalFallback it publishes here alone if it must.
func (n *node) publish(ctx context.Context, p *publication) (Delivery, error) {
	if p.toUser && p.user == (user{}) {
		return n.manager.publishHere(ctx, p) // to nobody
	}
	topic := p.topic()
	if p.room != nil {
		p.room.Data().notePlain()
	}
	out, err := n.reserve(topic, p)
	switch {
	case err == nil:
	case errors.Is(err, ErrBrokerUnavailable) && n.manager.cfg.Cluster.LocalFallback:
		delivery, err := n.manager.publishHere(ctx, p)
		if err == nil {
			n.owe(topic)
		}
		return delivery, err
	default:
		return Delivery{}, err
	}
	defer n.syncs.flights.End(n.syncs.flights.Begin())
	delivery, err := n.manager.publishHere(ctx, p)
	if err != nil {
		n.link.Release(out.size)
		pool.PutBuffer(out.buffer)
		return Delivery{}, err
	}
	n.link.Push(out)
	return delivery, nil
}

// publishAway publishes to a room that this node does not have, because findRoom has returned err.
func (m *Manager) publishAway(roomID string, p *publication, err error) error {
	if m.node == nil || !errors.Is(err, ErrRoomNotFound) || errors.Is(err, ErrManagerStopped) {
		return err
	}
	if err := m.checkRoom(roomID); err != nil {
		return err
	}
	n, topic := m.node, Topic{TopicRoom, roomID}
	out, err := n.reserve(topic, p)
	switch {
	case err == nil:
		n.link.Push(out)
	case errors.Is(err, ErrBrokerUnavailable) && m.cfg.Cluster.LocalFallback:
		n.owe(topic)
		return nil
	}
	return err
}

// topic returns the address of the message for other nodes.
func (p *publication) topic() Topic {
	switch {
	case p.room != nil:
		return Topic{TopicRoom, p.room.ID()}
	case p.toUser:
		return Topic{TopicUser, p.user.String()}
	}
	return Topic{}
}

// reserve encodes the message for the other nodes, and reserves its space in the queue.
func (n *node) reserve(topic Topic, p *publication) (outbound, error) {
	if !n.up.Load() {
		return outbound{}, n.refuse()
	}
	op, payload, h := p.op, p.payload, p.Handling
	if p.prepared != nil {
		inner, shared := p.prepared.frame.Payload()
		op, payload, h = Opcode(inner), shared, p.prepared.handling
	}
	msg := cluster.Message{
		Kind: cluster.Publish, Binary: op == OpBinary, High: h.Lane == engine.LaneHigh, TTL: h.TTL,
		Key: []byte(h.Key), Payload: payload,
	}
	if p.exclude != nil {
		msg.Exclude = []byte(p.exclude.ID)
	}
	return n.reserveMessage(topic, &msg)
}

func (n *node) reserveMessage(topic Topic, msg *cluster.Message) (outbound, error) {
	msg.Origin, msg.Stamp = n.origin, unstamped(topic)
	b := pool.GetBuffer()
	b.B = msg.Append(b.B[:0])
	out := outbound{topic, b, len(b.B) + outboundCost, measure.Now(), n.owed.Count()}
	if most := n.most.Load(); most > 0 && int64(len(b.B)) > most {
		pool.PutBuffer(b)
		return outbound{}, ErrMessageTooLarge
	}
	if !n.link.Reserve(out.size) {
		pool.PutBuffer(b)
		return outbound{}, n.refuse()
	}
	return out, nil
}

// askLimit asks the broker for the size of its largest message.
func (n *node) askLimit() {
	if l, ok := n.broker.(MessageLimiter); ok {
		n.most.Store(int64(l.MaxMessage()))
	}
}

// refuse returns the error of a publish for which there is no space or no link.
func (n *node) refuse() error {
	if err := n.manager.stopped(); err != nil {
		return err
	}
	n.counts.refused.Add(1)
	return ErrBrokerUnavailable
}

// post queues a message of the node itself.
func (n *node) post(topic Topic, msg *cluster.Message) error {
	if !n.up.Load() {
		return n.refuse()
	}
	out, err := n.reserveMessage(topic, msg)
	if err == nil {
		n.link.Push(out)
	}
	return err
}

// owe notes that a message of the topic does not reach the other nodes. They have to learn of it
// ahead of the messages that are published after it.
func (n *node) owe(topic Topic) {
	if topic.Kind != TopicNode {
		n.owed.Add(topic)
		n.link.Wake()
	}
}

// oweNow is owe for a message that the queue had: all messages that are sent after it are later.
func (n *node) oweNow(topic Topic) {
	n.owe(topic)
	n.owesNow.Store(true)
}

// send hands the messages of the queue to the broker.
func (n *node) send() {
	beat := time.NewTicker(n.manager.cfg.Cluster.Heartbeat)
	defer beat.Stop()
	for {
		if n.greet.Load() && n.up.Load() && n.listens.Load() { // the others answer the first heartbeat
			n.greet.Store(false)
			n.beat()
		}
		if out, ok := n.link.Pop(); ok {
			n.sendOne(&out)
			select {
			case <-beat.C:
				n.beat()
			default:
			}
			continue
		}
		if n.link.Ended() {
			n.sendOwed()
			n.sum()
			_ = n.publishNow(nodesTopic, &cluster.Message{Kind: cluster.Bye}) // otherwise the others notice late
			close(n.sent)
			return
		}
		n.sendOwed()
		select {
		case <-beat.C:
			n.beat()
		case <-n.link.Ready():
		case <-n.ending:
			return
		}
	}
}

// sendOne hands a message to the broker, behind the news of losses that came before it.
func (n *node) sendOne(out *outbound) {
	defer n.link.Release(out.size)
	defer pool.PutBuffer(out.buffer)
	waited := measure.Now() - out.at
	if !cluster.Age(out.buffer.B, waited) {
		return
	}
	if waited > n.gone() {
		n.counts.unsent.Add(1)
		n.oweNow(out.topic)
		return
	}
	if n.owesNow.Load() || n.owed.Since(out.owed) || !n.link.Full() {
		n.sendOwed()
	}
	if cluster.KindOf(out.buffer.B) == cluster.Synced {
		n.endRound(out.buffer.B)
	}
	if !n.up.Load() || n.publishNumbered(out.topic, out.buffer.B) != nil {
		n.counts.unsent.Add(1)
		n.oweNow(out.topic)
		return
	}
	n.counts.published.Add(1)
}

// sendOwed informs the other nodes of the losses that they have yet to learn of.
func (n *node) sendOwed() {
	if n.owed.Empty() || !n.up.Load() {
		return
	}
	n.owesNow.Store(false)
	topics, all := n.owed.Take()
	if all && n.publishLostAll() != nil {
		n.owed.AddAll()
		n.owesNow.Store(true)
	}
	for _, topic := range topics {
		if n.publishNow(topic, &cluster.Message{Kind: cluster.Lost}) != nil {
			n.oweNow(topic)
		}
	}
}

// publishNow hands a message of the node itself to the broker. The goroutine of send calls it.
func (n *node) publishNow(topic Topic, msg *cluster.Message) error {
	if !n.up.Load() {
		return ErrBrokerUnavailable
	}
	msg.Origin = n.origin
	if topic.Kind == TopicNode {
		return n.broker.Publish(topic, msg.Append(nil))
	}
	msg.Stamp = unstamped(topic)
	return n.publishNumbered(topic, msg.Append(nil))
}

// DisconnectUser closes all devices of the user, on all nodes of the cluster, as
// Client.CloseWithCode. name is the name given to WithUser, or the decimal text of the ID given to
// WithUserID. With a Broker that cannot be reached it returns ErrBrokerUnavailable: then the devices
// of this node are closed, and no others. A device that connects at the same time may be
// missed: refuse the user in WithAuthenticate first. Safe for concurrent use.
func (m *Manager) DisconnectUser(name string, code int, reason string) error {
	for _, c := range m.UserClients(name) {
		c.CloseWithCode(code, reason)
	}
	if m.node == nil || name == "" {
		return nil
	}
	if code < 0 || code >= 1<<16 {
		code = CloseNormal
	}
	reason = reason[:min(len(reason), maxCloseReason)]
	return m.node.post(Topic{TopicUser, userNamed(name).String()}, &cluster.Message{
		Kind: cluster.Disconnect, Payload: cluster.AppendClose(nil, uint16(code), reason),
	})
}

// maxCloseReason is the greatest length of the reason in a close frame.
const maxCloseReason = 123

// deleted ends a room on the other nodes: behind its messages where it has members, and
// where it is empty.
func (n *node) deleted(id string) {
	if n == nil {
		return
	}
	err := n.post(Topic{TopicRoom, id}, &cluster.Message{Kind: cluster.Delete})
	if err == nil {
		err = n.post(nodesTopic, &cluster.Message{Kind: cluster.Delete, Payload: []byte(id)})
	}
	if err != nil && !errors.Is(err, ErrManagerStopped) {
		n.manager.cfg.Logger.Warn("ws: DeleteRoom: the room stays on other nodes", slog.Any("error", err))
	}
}
