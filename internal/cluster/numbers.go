package cluster

import (
	"encoding/binary"
	"math"
	"time"
)

// Key is the address of a message between nodes.
type Key struct {
	Kind uint8
	Name string
}

// Stamp is the place of a message among those that its node sends. Times are in microseconds, At on a
// clock of the node, modulo 2^32.
type Stamp struct {
	Round  uint32 // from 1
	Number uint32 // of the message on its topic in the round, from 1; 0 for a message about a round
	At     uint32 // time at which the message was sent
	// Before is the time since the message before it on its topic in the round. In a Beat and a LostAll it is
	// the time since the begin of their round, and in a Sum the time since its end.
	Before uint32
}

// Numbers stamps the messages that a node sends on each topic. Their numbers run from 1 in each round; a
// round ends with its sum, a message to all nodes with the last number of each topic. So a Watch finds the
// messages that are missing: by the number of a later one, or by the sum. Not safe for concurrent
// use.
type Numbers struct {
	round uint32    // from 1
	epoch time.Time // of the clock
	began time.Time // of the round
	last  map[Key]*sent
	size  int // of the sum, about
}

// sent is the last message of a topic in the round.
type sent struct {
	number     uint32
	at, before time.Time // of the message, and of the one before it
}

const (
	// maxSum is the size of a sum, about, with which a round has to end.
	maxSum = 32 << 10
	// sumEntry is the size of a topic in a sum without its name, at most for short ones.
	sumEntry = 9
	// longest is the longest time that a Stamp has.
	longest = 15 * time.Minute
)

// NewNumbers begins with round 1.
func NewNumbers() *Numbers {
	now := time.Now()
	return &Numbers{round: 1, epoch: now, began: now, last: make(map[Key]*sent)}
}

// Next returns the stamp of the next message of the topic.
func (n *Numbers) Next(k Key) Stamp {
	last := n.last[k]
	if last == nil {
		last = new(sent)
		n.last[k] = last
		n.size += len(k.Name) + sumEntry
	}
	last.number++
	last.before, last.at = last.at, time.Now()
	st := Stamp{Round: n.round, Number: last.number, At: n.clock(last.at)}
	if st.Number > 1 {
		st.Before = micros(last.at.Sub(last.before))
	}
	return st
}

// Undo takes the stamp back that Next has returned last: the message was not sent.
func (n *Numbers) Undo(k Key) {
	last := n.last[k]
	last.number--
	last.at = last.before
}

// Round returns the stamp of a Beat or a LostAll.
func (n *Numbers) Round() Stamp { return n.StampOf(n.round, n.began) }

// StampOf returns the stamp of a message about a round, which began or ended at that time.
func (n *Numbers) StampOf(round uint32, at time.Time) Stamp {
	now := time.Now()
	return Stamp{Round: round, At: n.clock(now), Before: micros(now.Sub(at))}
}

// Topics returns the number of topics with messages in the round.
func (n *Numbers) Topics() int { return len(n.last) }

// Full reports whether the round has to end. most is the size of the largest message, or 0.
func (n *Numbers) Full(most int) bool { return n.size >= maxSum || most > 0 && n.size >= most/2 }

// End ends the round, and returns the payload of its sum: the length of the round, and each topic with
// its last number and the age of that message.
func (n *Numbers) End() []byte {
	now := time.Now()
	sum := make([]byte, 0, n.size+binary.MaxVarintLen64)
	sum = appendAge(sum, now.Sub(n.began))
	for k, last := range n.last {
		if last.number > 0 {
			sum = append(sum, k.Kind)
			sum = append(binary.AppendUvarint(sum, uint64(len(k.Name))), k.Name...)
			sum = binary.AppendUvarint(sum, uint64(last.number))
			sum = appendAge(sum, now.Sub(last.at))
		}
	}
	clear(n.last)
	n.round, n.began, n.size = n.round+1, now, 0
	return sum
}

// clock returns a time on the clock of the node.
func (n *Numbers) clock(t time.Time) uint32 { return uint32(t.Sub(n.epoch).Microseconds()) }

// micros returns a duration in microseconds; a longer one than a Stamp has is cut.
func micros(d time.Duration) uint32 { return uint32(min(d, longest).Microseconds()) }

// ageUnit is the unit of durations in a sum.
const ageUnit = 100 * time.Microsecond

// appendAge appends a duration, rounded down.
func appendAge(b []byte, d time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(max(d, 0)/ageUnit))
}

// cutAge is the reverse of appendAge. A longer duration than a Stamp has is cut.
func cutAge(b *[]byte) (d time.Duration, ok bool) {
	units, size := binary.Uvarint(*b)
	if size <= 0 {
		return 0, false
	}
	*b = (*b)[size:]
	return time.Duration(min(units, uint64(longest/ageUnit))) * ageUnit, true
}

// total is a topic in a sum.
type total struct {
	Key
	last uint32        // number of its last message
	age  time.Duration // of that message at the end of the round
}

// cutTotal cuts a topic off the beginning of a sum.
func cutTotal(sum *[]byte) (t total, ok bool) {
	b := *sum
	if len(b) < 2 {
		return t, false
	}
	t.Kind, b = b[0], b[1:]
	length, size := binary.Uvarint(b)
	if size <= 0 || length > uint64(len(b)-size) {
		return t, false
	}
	t.Name, b = string(b[size:size+int(length)]), b[size+int(length):]
	number, size := binary.Uvarint(b)
	if size <= 0 || number == 0 || number > math.MaxUint32 {
		return t, false
	}
	t.last, b = uint32(number), b[size:]
	if t.age, ok = cutAge(&b); !ok {
		return t, false
	}
	*sum = b
	return t, true
}
