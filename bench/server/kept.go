//go:build linux

package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// keptRoom numbers the messages of control.KeptRoom. Safe for concurrent use.
type keptRoom struct {
	mu   sync.Mutex
	last uint64 // guarded by mu: offset of the newest message in the current manager
}

func (k *keptRoom) head() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// keptSize is the number of messages that control.KeptRoom keeps.
const keptSize = 1000

// keptRoute registers ws.join for control.KeptRoom, whose offsets begin anew in each manager.
func (s *server) keptRoute(m *ws.Manager) error {
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	s.kept.last = 0
	return ws.HandleJoin(m, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
		if room != control.KeptRoom {
			return nil, ws.NewClientError(http.StatusForbidden, "only one room has a history")
		}
		return []ws.RoomOption{ws.WithHistory(ws.History{Size: keptSize, TTL: -1})}, nil
	})
}

// keep publishes the next number to control.KeptRoom if somebody has joined it. The number is the
// offset of its message.
func (s *server) keep() error {
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	number := s.kept.last + 1
	p, err := s.manager().PublishEvent(context.Background(), control.KeptRoom, control.HistoryEvent, number)
	switch {
	case errors.Is(err, ws.ErrRoomNotFound):
		return nil
	case err != nil:
		return err
	case p.Offset != number:
		return fmt.Errorf("message %d has offset %d", number, p.Offset)
	}
	s.kept.last = number
	return nil
}
