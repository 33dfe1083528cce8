package envelope

import (
	"strconv"
	"time"
)

// Notify is a notification of a room. Not safe for concurrent use.
type Notify struct {
	Event  string
	Room   string // "" for a notification to one client
	Offset bool   // leave space for the offset of the message in its room
	Data   []byte // JSON, or nil
}

// OffsetWidth is the number of digits for an offset: up to 2^53, which JavaScript represents
// exactly.
const OffsetWidth = 16

// blankOffset is the space for an offset. JSON allows spaces before a value (RFC 8259, section 2).
const blankOffset = "                "

// Append appends n to b as JSON, with the time. place is the position of the space for the offset,
// in bytes before the end; 0 without Offset.
func (n *Notify) Append(b []byte) (_ []byte, place int) {
	b = append(b, `{"type":"notify","event":`...)
	b = appendString(b, n.Event)
	if n.Room != "" {
		b = append(b, `,"room":`...)
		b = appendString(b, n.Room)
	}
	if n.Offset {
		b = append(b, `,"offset":`...)
		place = len(b)
		b = append(b, blankOffset...)
	}
	if len(n.Data) > 0 {
		b = append(b, `,"data":`...)
		b = append(b, n.Data...)
	}
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	b = append(b, '}')
	if n.Offset {
		place = len(b) - place
	}
	return b, place
}

// AppendOffset appends an offset to b in OffsetWidth bytes, with spaces in front.
func AppendOffset(b []byte, offset uint64) []byte {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], offset, 10)
	for range OffsetWidth - len(text) {
		b = append(b, ' ')
	}
	return append(b, text...)
}
