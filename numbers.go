package ws

import (
	"time"

	"github.com/qi-realtime/ws/internal/cluster"
)

// numbers finds losses that the broker does not report, such as those of a broken route between two of
// its servers: each node numbers its messages. Safe for concurrent use, but for its first group.
type numbers struct {
	// Confined to the goroutine of node.send.
	sent *cluster.Numbers
	sums [][]byte // the last ones

	watch *cluster.Watch
}

// keptSums is the number of sums that are sent again after a break of the link.
const keptSums = 16

func newNumbers(heartbeat time.Duration, since func(Topic) (time.Time, bool)) numbers {
	return numbers{
		sent:  cluster.NewNumbers(),
		watch: cluster.NewWatch(heartbeat, func(k cluster.Key) (time.Time, bool) { return since(topicOf(k)) }),
	}
}

func keyOf(t Topic) cluster.Key { return cluster.Key{Kind: uint8(t.Kind), Name: t.Name} }

func topicOf(k cluster.Key) Topic { return Topic{TopicKind(k.Kind), k.Name} }

// unnumbered returns the round of a message that gets its number when it is sent.
func unnumbered(topic Topic) (round uint32) {
	if topic.Kind != TopicNode {
		round = 1
	}
	return round
}

// subscribedSince returns the time from which on the node is subscribed to the topic.
func (n *node) subscribedSince(topic Topic) (time.Time, bool) {
	if topic.Kind == TopicAll {
		return time.Time{}, true
	}
	return n.interest.Since(topic)
}

// publishNumbered hands an encoded message to the broker. The goroutine of send calls it.
func (n *node) publishNumbered(topic Topic, msg []byte) error {
	if topic.Kind == TopicNode {
		return n.broker.Publish(topic, msg)
	}
	k := keyOf(topic)
	round, number := n.numbers.sent.Next(k)
	cluster.SetNumber(msg, round, number)
	if err := n.broker.Publish(topic, msg); err != nil {
		n.numbers.sent.Undo(k)
		return err
	}
	if n.numbers.sent.Full(int(n.most.Load())) {
		n.sum()
	}
	return nil
}

// sum ends a round, if there are messages in it. On a new connection it sends the last sums again, which
// are possibly lost.
func (n *node) sum() {
	if !n.up.Load() {
		return
	}
	b := n.numbers.end(n.origin)
	if n.repeat.Swap(false) {
		for _, b := range n.numbers.sums {
			cluster.SumAgain(b)
			_ = n.broker.Publish(nodesTopic, b)
		}
	} else if b != nil {
		_ = n.broker.Publish(nodesTopic, b) // with an error, it comes again with the next connection
	}
}

// end returns the message with the sum of a round, or nil if there is no message in it.
func (s *numbers) end(origin []byte) []byte {
	round, topics := s.sent.Round()
	if topics == 0 {
		return nil
	}
	msg := cluster.Message{Kind: cluster.Sum, Origin: origin, Round: round, Payload: s.sent.End()}
	b := msg.Append(nil)
	if len(s.sums) == keptSums {
		s.sums = s.sums[1:]
	}
	s.sums = append(s.sums, b)
	return b
}

// publishLostAll informs the other nodes of a loss on all topics, in place of the sum of the round.
func (n *node) publishLostAll() error {
	round, _ := n.numbers.sent.Round()
	err := n.publishNow(nodesTopic, &cluster.Message{Kind: cluster.LostAll, Round: round})
	if err == nil {
		_ = n.numbers.sent.End()
	}
	return err
}

// noteNumber looks at the number of a message of another node, and notes the losses that it shows.
func (n *node) noteNumber(topic Topic, in *cluster.Message) {
	w := n.numbers.watch
	if in.Round == 0 || (topic == nodesTopic) != isNodes(in.Kind) {
		return
	}
	switch in.Kind {
	case cluster.Beat:
		n.noteHoles(nil, w.Beat(in.Origin, in.Round, in.Number))
	case cluster.Sum:
		lost, all, err := w.Sum(in.Origin, in.Round, in.Number != 0, in.Payload)
		if err != nil {
			n.counts.malformed.Add(1)
		}
		n.noteHoles(lost, all)
	case cluster.LostAll:
		w.SumLost(in.Origin, in.Round)
	case cluster.Lost: // whose gap follows
		k := keyOf(topic)
		w.Told(in.Origin, in.Round, k)
		_ = w.Message(in.Origin, in.Round, in.Number, k)
	default:
		if w.Message(in.Origin, in.Round, in.Number, keyOf(topic)) {
			n.counts.holes.Add(1)
			n.loseNow(topic)
		}
	}
}

// isNodes reports whether a kind of message with a round is sent to the topic of all nodes.
func isNodes(kind cluster.Kind) bool {
	return kind == cluster.Beat || kind == cluster.Sum || kind == cluster.LostAll
}

// findLosses looks for messages that have not come after their sum.
func (n *node) findLosses() {
	ticker := time.NewTicker(max(n.manager.cfg.Cluster.Heartbeat/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			n.noteHoles(n.numbers.watch.Due(), false)
		case <-n.ending:
			return
		}
	}
}

// noteHoles notes losses that the numbers of messages have shown: on topics, or on all.
func (n *node) noteHoles(lost []cluster.Key, all bool) {
	if all {
		n.counts.holes.Add(1)
		n.loseAll()
	}
	for _, k := range lost {
		n.counts.holes.Add(1)
		topic := topicOf(k)
		if topic.Kind != TopicUser || n.gapOfUser(userNamed(topic.Name)) != nil {
			n.lose(topic)
		}
	}
}
