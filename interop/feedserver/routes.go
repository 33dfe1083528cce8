package main

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"github.com/qi-realtime/ws"
)

type closeRequest struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

type countRequest struct {
	Key string `json:"key"`
}

type publishRequest struct {
	Room string `json:"room"`
	N    int    `json:"n"`
}

type count struct {
	N int `json:"n"`
}

// counter counts the calls for each key.
// Safe for concurrent use.
type counter struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *counter) add(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[key]++
	return c.counts[key]
}

// register adds the handlers of the tests.
func register(m *ws.Manager) error {
	counter := &counter{counts: map[string]int{}}
	numbers := ws.DefineEvent[int](m, "number")
	refused := ws.DefineError(m, 422, "refused")
	return errors.Join(
		ws.HandleJoin(m, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
			// Every second join of a room whose name begins so is refused, but may be sent again.
			if strings.HasPrefix(room, "busy") && counter.add("joins of "+room)%2 == 0 {
				return nil, ws.NewClientError(503, "busy").WithData(map[string]int{"retry_ms": 5})
			}
			return roomOptions(room)
		}),
		ws.Handle(m, "publish", func(c *ws.Client, r *publishRequest) (*ws.Position, error) {
			return publish(m, c, r, numbers, counter)
		}),
		// publish.inbox publishes to the inbox of the user that Room names.
		ws.Handle(m, "publish.inbox", func(c *ws.Client, r *publishRequest) (last *ws.Position, err error) {
			last = &ws.Position{}
			for range r.N {
				if *last, err = numbers.PublishToInbox(c.Context(), r.Room, counter.add("inbox "+r.Room)); err != nil {
					return nil, err
				}
			}
			return last, nil
		}),
		ws.Handle(m, "echo", func(_ *ws.Client, data *json.RawMessage) (*json.RawMessage, error) { return data, nil }),
		// hold is answered when the connection has ended.
		ws.Handle0(m, "hold", func(c *ws.Client, _ *json.RawMessage) error {
			<-c.Context().Done()
			return nil
		}),
		ws.Handle(m, "count", func(_ *ws.Client, r *countRequest) (*count, error) {
			return &count{counter.add(r.Key)}, nil
		}),
		ws.Handle0(m, "refuse", func(*ws.Client, *json.RawMessage) error {
			return refused.New("no").WithData(map[string]string{"field": "name"})
		}),
		ws.Handle0(m, "close", func(c *ws.Client, r *closeRequest) error {
			c.CloseWithCode(r.Code, r.Reason)
			return nil
		}),
		// token closes a client with old credentials with 4401.
		ws.HandleOnly(m, "token", func(c *ws.Client) (*string, error) {
			token, _ := c.GetMetadata("token")
			text, _ := token.(string)
			if text == "old" {
				c.CloseWithCode(4401, "the token is old")
			}
			return &text, nil
		}),
	)
}

// The number of messages that a room keeps; long is for rooms whose names begin so.
const (
	historySize     = 50
	longHistorySize = 10_000
)

// roomOptions gives a history to all rooms but those whose names begin with "plain". Nobody may
// join the room "secret".
func roomOptions(room string) ([]ws.RoomOption, error) {
	switch {
	case room == "secret":
		return nil, ws.NewClientError(403, "not you")
	case strings.HasPrefix(room, "plain"):
		return nil, nil
	case strings.HasPrefix(room, "long"):
		return []ws.RoomOption{ws.WithHistory(ws.History{Size: longHistorySize, Bytes: -1})}, nil
	}
	return []ws.RoomOption{ws.WithHistory(ws.History{Size: historySize})}, nil
}

// publish publishes n numbers to the room and returns the position of the last one. The numbers
// of a room count from 1, so in a room with a history each is equal to its offset.
func publish(
	m *ws.Manager, c *ws.Client, r *publishRequest, event ws.TypedEvent[int], numbers *counter,
) (last *ws.Position, err error) {
	options, err := roomOptions(r.Room)
	if err != nil {
		return nil, err
	}
	if _, err := m.CreateRoom(r.Room, nil, options...); err != nil && !errors.Is(err, ws.ErrRoomExists) {
		return nil, err
	}
	last = &ws.Position{}
	for range r.N {
		if *last, err = event.Publish(c.Context(), r.Room, numbers.add("room "+r.Room)); err != nil {
			return nil, err
		}
	}
	return last, nil
}
