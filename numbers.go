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
	sums []sum // the last ones

	watch *cluster.Watch
}

// sum is the sum of a round. Immutable.
type sum struct {
	round   uint32
	ended   time.Time
	payload []byte
}

// keptSums is the number of sums that are sent again after a break of the link.
const keptSums = 16

func newNumbers(heartbeat time.Duration, since, asked func(Topic) (time.Time, bool)) numbers {
	return numbers{
		sent: cluster.NewNumbers(),
		watch: cluster.NewWatch(heartbeat,
			func(k cluster.Key) (time.Time, bool) { return since(topicOf(k)) },
			func(k cluster.Key) (time.Time, bool) { return asked(topicOf(k)) }),
	}
}

func keyOf(t Topic) cluster.Key { return cluster.Key{Kind: uint8(t.Kind), Name: t.Name} }

func topicOf(k cluster.Key) Topic { return Topic{TopicKind(k.Kind), k.Name} }

// unstamped returns the place of the stamp that a message gets when it is sent.
func unstamped(topic Topic) (st cluster.Stamp) {
	if topic.Kind != TopicNode {
		st.Round = 1
	}
	return st
}

// wantedSince returns the time since which there are clients of the topic.
func (n *node) wantedSince(topic Topic) (time.Time, bool) {
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
	cluster.SetStamp(msg, n.numbers.sent.Next(k))
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
	s := &n.numbers
	first := s.end()
	if n.repeat.Swap(false) {
		first = 0
	}
	for _, sum := range s.sums[first:] {
		// With an error, it comes again with the next connection.
		_ = n.publishNow(nodesTopic, &cluster.Message{
			Kind: cluster.Sum, Stamp: s.sent.StampOf(sum.round, sum.ended), Payload: sum.payload,
		})
	}
}

// end ends the round, if there are messages in it, and returns the place of the first new sum.
func (s *numbers) end() (first int) {
	if s.sent.Topics() > 0 {
		if len(s.sums) == keptSums {
			s.sums = s.sums[1:]
		}
		round := s.sent.Round().Round
		s.sums = append(s.sums, sum{round, time.Now(), s.sent.End()})
		return len(s.sums) - 1
	}
	return len(s.sums)
}

// publishLostAll informs the other nodes of a loss on all topics, in place of the sum of the round.
func (n *node) publishLostAll() error {
	err := n.publishNow(nodesTopic, &cluster.Message{Kind: cluster.LostAll, Stamp: n.numbers.sent.Round()})
	if err == nil {
		_ = n.numbers.sent.End()
	}
	return err
}

// noteNumber looks at the number of a message of another node, and notes the losses that it shows.
func (n *node) noteNumber(topic Topic, in *cluster.Message) {
	w := n.numbers.watch
	if in.Stamp.Round == 0 || (topic == nodesTopic) != isNodes(in.Kind) {
		return
	}
	switch in.Kind {
	case cluster.Beat:
		n.noteBroken(w.Beat(in.Origin, in.Stamp))
	case cluster.Sum:
		broken, err := w.Sum(in.Origin, in.Stamp, in.Payload)
		if err != nil {
			n.counts.malformed.Add(1)
		}
		n.noteBroken(broken)
	case cluster.LostAll:
		w.SumLost(in.Origin, in.Stamp.Round)
	case cluster.Lost: // whose gap follows
		k := keyOf(topic)
		w.Told(in.Origin, in.Stamp.Round, k)
		_ = w.Message(in.Origin, in.Stamp, k)
	default:
		if w.Message(in.Origin, in.Stamp, keyOf(topic)) {
			n.countHole(topic)
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
			flight := n.syncs.flights.Begin()
			n.noteHoles(n.numbers.watch.Due())
			n.syncs.flights.End(flight)
		case <-n.ending:
			return
		}
	}
}

// noteBroken notes that messages of all topics are possibly lost, if broken is true.
func (n *node) noteBroken(broken bool) {
	if broken {
		n.counts.holes.Add(1)
		n.loseAll()
	}
}

// noteHoles notes the losses on topics that the numbers of messages have shown.
func (n *node) noteHoles(lost []cluster.Key) {
	for _, k := range lost {
		topic := topicOf(k)
		n.countHole(topic)
		if topic.Kind == TopicRoom {
			n.manager.presences.lost(topic.Name)
		}
		if topic.Kind != TopicUser || n.gapOfUser(userNamed(topic.Name)) != nil {
			n.lose(topic)
		}
	}
}

// countHole counts a loss on a topic, unless the subscription is so new that the message may have been sent
// before it.
func (n *node) countHole(topic Topic) {
	if topic.Kind == TopicAll || n.interest.EffectiveFor(topic) > 3*n.manager.cfg.Cluster.Heartbeat {
		n.counts.holes.Add(1)
	}
}
