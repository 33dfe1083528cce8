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

// Append appends n to b as JSON, with the time. place is the position of the space for the offset, or
// without Offset the one for AppendStored, in bytes before the end.
func (n *Notify) Append(b []byte) (_ []byte, place int) {
	b = append(b, `{"type":"notify","event":`...)
	b = appendString(b, n.Event)
	if n.Room != "" {
		b = append(b, `,"room":`...)
		b = appendString(b, n.Room)
	}
	place = len(b) + len(`,`)
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
	return b, len(b) - place
}

// AppendStored appends a notification without an offset to b. At the place, see Append, it inserts
// the offset of the message, and prev, the offset of the message before it, unless that is one less:
//
//	"offset":1050,"prev":1042,
//
// It returns false, and b, if the place is not before a field of the notification.
func AppendStored(b, notify []byte, place int, offset, prev uint64) (_ []byte, ok bool) {
	i := len(notify) - place
	if i <= 0 || i >= len(notify) || notify[i-1] != ',' || notify[i] != '"' {
		return b, false
	}
	b = append(b, notify[:i]...)
	b = append(b, `"offset":`...)
	b = strconv.AppendUint(b, offset, 10)
	if prev+1 != offset {
		b = append(b, `,"prev":`...)
		b = strconv.AppendUint(b, prev, 10)
	}
	b = append(b, ',')
	return append(b, notify[i:]...), true
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
