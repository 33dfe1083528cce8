//go:build linux

package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// historyOptions keeps clients that do not read connected for as long as a command needs them.
func historyOptions(c *ws.Config) { c.WriteTimeout = time.Hour }

// historyRoutes registers ws.join, and an echo of binary messages for bystanders.
func (s *server) historyRoutes(m *ws.Manager) error {
	m.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) }) // the client would miss it
	return ws.HandleJoin(m, func(*ws.Client, string) ([]ws.RoomOption, error) { return s.withHistory(), nil })
}

// withHistory are the options of each room in mode History.
func (s *server) withHistory() []ws.RoomOption {
	return []ws.RoomOption{ws.WithHistory(ws.History{Size: s.cfg.HistorySize, Bytes: -1, TTL: -1})}
}

// publishKept publishes a text of size bytes to a room with a history, and creates a missing room.
func (s *server) publishKept(room, size int) error {
	m, name, text := s.manager(), roomName(room), strings.Repeat("x", size)
	_, err := m.PublishEvent(context.Background(), name, control.HistoryEvent, text)
	if !errors.Is(err, ws.ErrRoomNotFound) {
		return err
	}
	if _, err := m.CreateRoom(name, nil, s.withHistory()...); err != nil && !errors.Is(err, ws.ErrRoomExists) {
		return err
	}
	_, err = m.PublishEvent(context.Background(), name, control.HistoryEvent, text)
	return err
}
