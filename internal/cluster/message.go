// Package cluster has the parts of a cluster that need no Manager: the format of messages between
// nodes, the bounded queue of a link, and the set of topics that a node wants.
package cluster

import (
	"encoding/binary"
	"errors"
	"time"
)

// Kind is the kind of a message between nodes.
type Kind uint8

// The kinds. Other nodes may run an older version: do not renumber.
const (
	Publish    Kind = 1 + iota // a message for clients
	Lost                       // messages of the topic are possibly lost
	LostAll                    // messages of all topics are possibly lost
	Delete                     // a room has ended; Payload is its ID if it is not the topic's
	Disconnect                 // the devices of a user are closed; see AppendClose
	Beat                       // a node is alive; Payload describes it
	Bye                        // a node stops
	Sum                        // a round of Numbers ends; Payload is its sum
	Stored                     // a message of a history; see AppendStored

	Presence     // users of the room have come or gone on a node; a presence.Delta
	PresencePage // users of a room on a node; a presence.Page
	PresenceAsk  // a node wants the users of a room; Payload is its ID if it is not the topic's

	SyncAsk // a node wants a Synced from all others; Payload is the number of the question
	Synced  // all that a node has published before a SyncAsk is sent; see AppendSynced

	maxKind = Synced
)

// Message is one message between nodes. Not safe for concurrent use.
type Message struct {
	Kind   Kind
	Binary bool // opcode binary; otherwise text
	High   bool // high priority
	// TTL is the longest time for which the message may wait; 0 has no end.
	TTL time.Duration
	// Stamp is the one of Numbers; without one, its Round is 0.
	Stamp   Stamp
	Origin  []byte // ID of the node that sent it; 1 to MaxID bytes
	Key     []byte // conflation key; empty without
	Exclude []byte // ID of a client that does not get it; empty without
	Payload []byte
}

// MaxID is the greatest length of the ID of a node.
const MaxID = 64

// version is the first byte of each message.
const version = 1

// The flags of a message.
const (
	flagBinary = 1 << iota
	flagHigh
	flagTTL
	flagKey
	flagExclude
	flagStamp
	allFlags = 1<<iota - 1
)

// ttlOffset is the place of the TTL in a message that has one.
const ttlOffset = 3

// ErrMalformed says that bytes are no message of a version and kind that this node knows.
var ErrMalformed = errors.New("cluster: malformed message")

// Append appends the encoded message to b: version, kind, flags, TTL, stamp, origin, key,
// excluded client, payload. The parts that the flags do not name are left out.
func (m *Message) Append(b []byte) []byte {
	b = append(b, version, byte(m.Kind), m.flags())
	if m.TTL != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.TTL))
	}
	if m.Stamp.Round != 0 {
		b = append(b, make([]byte, stampSize)...)
		putStamp(b[len(b)-stampSize:], m.Stamp)
	}
	b = appendBytes(b, m.Origin)
	if len(m.Key) > 0 {
		b = appendBytes(b, m.Key)
	}
	if len(m.Exclude) > 0 {
		b = appendBytes(b, m.Exclude)
	}
	return append(b, m.Payload...)
}

func (m *Message) flags() (flags byte) {
	for i, set := range [...]bool{m.Binary, m.High, m.TTL != 0, len(m.Key) > 0, len(m.Exclude) > 0, m.Stamp.Round != 0} {
		if set {
			flags |= 1 << i
		}
	}
	return flags
}

// Age takes a time of waiting off the TTL of an encoded message, and reports whether some of the
// TTL is left. It returns true for a message without a TTL.
func Age(b []byte, waited time.Duration) bool {
	if b[2]&flagTTL == 0 {
		return true
	}
	at := b[ttlOffset : ttlOffset+8]
	ttl := time.Duration(binary.BigEndian.Uint64(at)) - waited
	if ttl <= 0 {
		return false
	}
	binary.BigEndian.PutUint64(at, uint64(ttl))
	return true
}

// SetStamp sets the stamp of an encoded message that has one.
func SetStamp(b []byte, st Stamp) {
	at := b[ttlOffset:]
	if b[2]&flagTTL != 0 {
		at = at[8:]
	}
	putStamp(at, st)
}

// stampSize is the size of an encoded Stamp.
const stampSize = 16

func putStamp(b []byte, st Stamp) {
	for i, v := range [...]uint32{st.Round, st.Number, st.At, st.Before} {
		binary.BigEndian.PutUint32(b[4*i:], v)
	}
}

// KindOf returns the kind of an encoded message.
func KindOf(b []byte) Kind { return Kind(b[1]) }

// Decode decodes b, to which the message then refers. The error is ErrMalformed, and the message then
// undefined.
func (m *Message) Decode(b []byte) error {
	*m = Message{}
	if len(b) < ttlOffset || b[0] != version || b[1] == 0 || Kind(b[1]) > maxKind || b[2]&^allFlags != 0 {
		return ErrMalformed
	}
	flags := b[2]
	m.Kind, m.Binary, m.High = Kind(b[1]), flags&flagBinary != 0, flags&flagHigh != 0
	b = b[ttlOffset:]
	ok := m.cutFixed(flags, &b) && cutBytes(&m.Origin, &b) && len(m.Origin) <= MaxID
	if flags&flagKey != 0 {
		ok = ok && cutBytes(&m.Key, &b)
	}
	if flags&flagExclude != 0 {
		ok = ok && cutBytes(&m.Exclude, &b)
	}
	if !ok {
		return ErrMalformed
	}
	m.Payload = b
	return nil
}

// cutFixed cuts the parts of fixed size off the beginning of b.
func (m *Message) cutFixed(flags byte, b *[]byte) bool {
	if flags&flagTTL != 0 {
		if len(*b) < 8 || int64(binary.BigEndian.Uint64(*b)) <= 0 {
			return false
		}
		m.TTL, *b = time.Duration(binary.BigEndian.Uint64(*b)), (*b)[8:]
	}
	if flags&flagStamp != 0 {
		if len(*b) < stampSize || binary.BigEndian.Uint32(*b) == 0 {
			return false
		}
		part := func(i int) uint32 { return binary.BigEndian.Uint32((*b)[4*i:]) }
		m.Stamp, *b = Stamp{part(0), part(1), part(2), part(3)}, (*b)[stampSize:]
	}
	return true
}

// AppendClose appends the payload of Disconnect to b: the close code and the reason.
func AppendClose(b []byte, code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(b, code), reason...)
}

// CutClose is the reverse of AppendClose.
func CutClose(b []byte) (code uint16, reason string, ok bool) {
	if len(b) < 2 {
		return 0, "", false
	}
	return binary.BigEndian.Uint16(b), string(b[2:]), true
}

// AppendSynced appends the payload of Synced to b: the number of the question, and the last round with a message
// that was published before it.
func AppendSynced(b []byte, number uint64, round uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, number), round)
}

// SetSyncedRound sets the round of an encoded Synced.
func SetSyncedRound(b []byte, round uint32) { binary.BigEndian.PutUint32(b[len(b)-4:], round) }

// CutSynced is the reverse of AppendSynced.
func CutSynced(b []byte) (number uint64, round uint32, ok bool) {
	if len(b) != 12 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), true
}

// AppendStored appends the payload of Stored to b, an encoded message without one: the JSON of a
// notification, and the place at which the offset of the message goes, in bytes before the end.
func AppendStored(b, notify []byte, place int) []byte {
	return append(binary.AppendUvarint(b, uint64(place)), notify...)
}

// CutStored is the reverse of AppendStored. The place may be any number.
func CutStored(b []byte) (notify []byte, place int, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)) {
		return nil, 0, false
	}
	return b[size:], int(n), true
}

func appendBytes(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

// cutBytes cuts a part that is not empty off the beginning of b.
func cutBytes(part, b *[]byte) bool {
	n, size := binary.Uvarint(*b)
	if size <= 0 || n == 0 || n > uint64(len(*b)-size) {
		return false
	}
	*part, *b = (*b)[size:size+int(n)], (*b)[size+int(n):]
	return true
}
