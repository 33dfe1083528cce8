package cluster

import (
	"encoding/binary"
	"math"
)

// Key is the address of a message between nodes.
type Key struct {
	Kind uint8
	Name string
}

// Numbers numbers the messages that a node sends on each topic. They run from 1 in each round; a round
// ends with its sum, a message to all nodes with the last number of each topic. So a Watch finds the
// messages that are missing: by the number of a later one, or by the sum. Not safe for concurrent
// use.
type Numbers struct {
	round uint32 // from 1
	last  map[Key]*uint32
	size  int // of the sum, about
}

const (
	// maxSum is the size of a sum, about, with which a round has to end.
	maxSum = 32 << 10
	// sumEntry is the size of a topic in a sum without its name, at most for short ones.
	sumEntry = 7
)

// NewNumbers begins with round 1.
func NewNumbers() *Numbers { return &Numbers{round: 1, last: make(map[Key]*uint32)} }

// Next returns the round, and the number of the next message of the topic.
func (n *Numbers) Next(k Key) (round, number uint32) {
	last := n.last[k]
	if last == nil {
		last = new(uint32)
		n.last[k] = last
		n.size += len(k.Name) + sumEntry
	}
	*last++
	return n.round, *last
}

// Undo takes the number back that Next has returned last: the message was not sent.
func (n *Numbers) Undo(k Key) { *n.last[k]-- }

// Round returns the number of the round, and of the topics with messages in it.
func (n *Numbers) Round() (round, topics uint32) { return n.round, uint32(len(n.last)) }

// Full reports whether the round has to end. most is the size of the largest message, or 0.
func (n *Numbers) Full(most int) bool { return n.size >= maxSum || most > 0 && n.size >= most/2 }

// End ends the round, and returns the payload of its sum.
func (n *Numbers) End() []byte {
	sum := make([]byte, 0, n.size)
	for k, number := range n.last {
		if *number > 0 {
			sum = append(sum, k.Kind)
			sum = append(binary.AppendUvarint(sum, uint64(len(k.Name))), k.Name...)
			sum = binary.AppendUvarint(sum, uint64(*number))
		}
	}
	clear(n.last)
	n.round, n.size = n.round+1, 0
	return sum
}

// cutSum cuts a topic with its last number off the beginning of a sum.
func cutSum(sum *[]byte) (k Key, last uint32, ok bool) {
	b := *sum
	if len(b) < 2 {
		return k, 0, false
	}
	k.Kind, b = b[0], b[1:]
	length, size := binary.Uvarint(b)
	if size <= 0 || length > uint64(len(b)-size) {
		return k, 0, false
	}
	k.Name, b = string(b[size:size+int(length)]), b[size+int(length):]
	number, size := binary.Uvarint(b)
	if size <= 0 || number == 0 || number > math.MaxUint32 {
		return k, 0, false
	}
	*sum = b[size:]
	return k, uint32(number), true
}
