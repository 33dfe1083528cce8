package harness

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// Member is the client's side of a room with a history: it keeps the position, and checks that each
// message follows the one before, or a gap. Not safe for concurrent use.
type Member struct {
	*Client
	Room     string
	Position ws.Position
	Got      []uint64     // offsets of the messages, in order
	Gaps     []ws.RoomGap // in order
	requests int
}

// RoomMessage is a message of a room.
type RoomMessage struct {
	Envelope
	Room   string          `json:"room"`
	Offset uint64          `json:"offset"`
	Prev   *uint64         `json:"prev"`
	Data   json.RawMessage `json:"data"`
}

// Join sends ws.join with the given fields beside the room, such as `"last":3`, and returns the
// number of messages that are replayed. Without a position the member begins at the offset of the
// response less this number.
func (m *Member) Join(fields string) (replaying int) {
	m.T.Helper()
	m.requests++
	id := "join" + strconv.Itoa(m.requests)
	data := `{"room":` + strconv.Quote(m.Room)
	if fields != "" {
		data += "," + fields
	}
	m.Send(Request("ws.join", id, data+"}"))
	var joined struct {
		Room      string
		Epoch     string
		Offset    *uint64
		Replaying *int
	}
	reply := m.ExpectReply(id, 200, "success")
	require.NoError(m.T, json.Unmarshal([]byte(reply), &joined))
	require.Equal(m.T, m.Room, joined.Room)
	if joined.Epoch == "" {
		require.Nil(m.T, joined.Offset, reply)
		require.Nil(m.T, joined.Replaying, reply)
		return 0
	}
	replaying = *joined.Replaying
	if m.Position.Epoch == "" {
		m.Position = ws.Position{Epoch: joined.Epoch, Offset: *joined.Offset - uint64(replaying)}
	}
	return replaying
}

// Rejoin joins from the member's position.
func (m *Member) Rejoin() (replaying int) {
	m.T.Helper()
	return m.Join(m.Since())
}

// Since returns the field since for the member's position.
func (m *Member) Since() string {
	return fmt.Sprintf(`"since":{"epoch":%q,"offset":%d}`, m.Position.Epoch, m.Position.Offset)
}

// Take reads one message of the room, and returns it. A gap is noted, and may be the result.
func (m *Member) Take() RoomMessage {
	m.T.Helper()
	f := m.Next()
	msg, err := m.Follow(f.Payload)
	require.NoError(m.T, err, "%s", f.Payload)
	return msg
}

// Follow checks that a message follows the ones before, and moves the position.
func (m *Member) Follow(payload []byte) (msg RoomMessage, err error) {
	if err := json.Unmarshal(payload, &msg); err != nil {
		return msg, err
	}
	if msg.Room != m.Room {
		return msg, fmt.Errorf("a message of room %q", msg.Room)
	}
	if msg.Event == "ws.gap" {
		g := ws.RoomGap{Room: msg.Room}
		if err := json.Unmarshal(msg.Data, &g); err != nil {
			return msg, err
		}
		if g.Reason != ws.GapEpoch && (g.Epoch != m.Position.Epoch || g.After != m.Position.Offset || g.Next <= g.After+1) {
			return msg, fmt.Errorf("a gap %+v at %+v", g, m.Position)
		}
		m.Gaps = append(m.Gaps, g)
		m.Position = ws.Position{Epoch: g.Epoch, Offset: g.Next - 1}
		return msg, nil
	}
	prev := msg.Offset - 1
	if msg.Prev != nil {
		if *msg.Prev == prev {
			return msg, fmt.Errorf("prev %d of offset %d", prev, msg.Offset)
		}
		prev = *msg.Prev
	}
	if prev != m.Position.Offset {
		return msg, fmt.Errorf("offset %d behind %d at %+v", msg.Offset, prev, m.Position)
	}
	m.Position.Offset = msg.Offset
	m.Got = append(m.Got, msg.Offset)
	return msg, nil
}

// TakeUpTo reads until the member's position has that offset.
func (m *Member) TakeUpTo(offset uint64) {
	m.T.Helper()
	for m.Position.Offset < offset {
		m.Take()
	}
	require.Equal(m.T, offset, m.Position.Offset)
}

// Ack sends ws.ack for the offset, as a notification if id is empty.
func (m *Member) Ack(id string, offset uint64) {
	m.T.Helper()
	data := fmt.Sprintf(`{"room":%q,"offset":%d}`, m.Room, offset)
	if id == "" {
		m.Send(`{"type":"notify","event":"ws.ack","data":` + data + `}`)
		return
	}
	m.Send(Request("ws.ack", id, data))
}
