//go:build linux

package server

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// numbered is the rooms of mode Numbered. Safe for concurrent use.
type numbered struct {
	options []ws.RoomOption // immutable after numberedRoutes
	created sync.Map        // numbers of rooms that this node has; others are possibly being created
}

// Unordered allows several messages to one room at once in mode Numbered: the history orders them.
func (s *server) Unordered() bool { return s.cfg.Mode == control.Numbered }

// numberedRoutes registers ws.join, and a handler for acknowledgements.
func (s *server) numberedRoutes(m *ws.Manager) error {
	n := &s.numbered
	n.options = []ws.RoomOption{ws.WithHistory(ws.History{Size: s.cfg.HistorySize, Bytes: -1})}
	m.HandleBinary(func(c *ws.Client, payload []byte) { s.Handle(client{s, c}, payload) })
	return ws.HandleJoin(m, func(*ws.Client, string) ([]ws.RoomOption, error) { return n.options, nil })
}

// errPlain says that the room had no history on this node.
var errPlain = errors.New("bench: the message has no position")

// publish publishes the stamp of payload, in JSON of its size or more. The first publishers of a room
// come at the same time. None may publish before the room is there: the message would be a plain one.
func (n *numbered) publish(m *ws.Manager, room int, payload []byte) error {
	name := roomName(room)
	if _, exists := n.created.Load(room); !exists {
		if _, err := m.CreateRoom(name, nil, n.options...); err != nil && !errors.Is(err, ws.ErrRoomExists) {
			return err
		}
		n.created.Store(room, true)
	}
	at, err := m.PublishEvent(context.Background(), name, control.HistoryEvent, &control.EchoData{
		Seq:  binary.LittleEndian.Uint64(payload) + control.NumberBase,
		Sent: int64(binary.LittleEndian.Uint64(payload[8:])) + control.NumberBase,
		Pad:  strings.Repeat("x", max(0, len(payload)-numberedBytes)),
	})
	if err == nil && at == (ws.Position{}) {
		return errPlain
	}
	return err
}

// numberedBytes is about the size of EchoData without a pad.
const numberedBytes = 64
