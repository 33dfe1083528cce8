package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/qi-realtime/ws"
)

const (
	maxName    = 24   // runes in a name or a room's name
	maxText    = 2000 // runes in a message
	maxMembers = 100  // names in a presence notification, which counts all members

	statsInterval    = time.Second
	presenceInterval = 200 * time.Millisecond
)

type (
	joinRequest struct {
		Name string `json:"name"`
		Room string `json:"room"`
	}
	joinResponse struct {
		ID string `json:"id"`
	}
	sendRequest struct {
		Text string `json:"text"`
	}
	chatMessage struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Text string `json:"text"`
	}
	member struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	presence struct {
		Room    string   `json:"room"`
		Count   int      `json:"count"`
		Members []member `json:"members"`
	}
	stats struct {
		Connections int     `json:"connections"`
		PerSecond   float64 `json:"messages_per_second"`
	}
)

// chat holds the state of the service beyond the manager's rooms. Safe for concurrent use.
type chat struct {
	m        *ws.Manager
	messages atomic.Int64 // sent since the last stats notification

	mu      sync.Mutex
	changed map[string]struct{} // rooms whose members changed since their last presence notification
}

// newChat registers the chat's handlers and subscriptions with m.
func newChat(m *ws.Manager) (*chat, error) {
	c := &chat{m: m, changed: make(map[string]struct{})}
	// EventRoomLeft would not do, because it may be dropped when very many leave at once.
	m.Subscribe(ws.EventClientDisconnected, func(e ws.Event) {
		if end, ok := e.Data.(*ws.CloseError); ok {
			c.markChanged(end.Rooms...)
		}
	})
	err := errors.Join(
		ws.Handle(m, "chat.join", c.join),
		ws.Handle0(m, "chat.leave", c.leave),
		ws.Handle0(m, "chat.send", c.send),
	)
	return c, err
}

// join names the client and moves it into a room. A client that reconnects joins again.
func (c *chat) join(client *ws.Client, req *joinRequest) (*joinResponse, error) {
	name, room := visible(req.Name), visible(req.Room)
	if !validLength(name, maxName) {
		return nil, ws.NewClientError(400, "Your name needs 1 to 24 characters")
	}
	if !validLength(room, maxName) {
		return nil, ws.NewClientError(400, "The room's name needs 1 to 24 characters")
	}
	for _, old := range client.GetRooms() {
		if old != room {
			client.LeaveRoom(old)
			c.markChanged(old)
		}
	}
	client.SetMetadata("name", name)
	if err := client.JoinRoom(room); err != nil && !errors.Is(err, ws.ErrAlreadyInRoom) {
		return nil, err
	}
	c.markChanged(room)
	return &joinResponse{ID: client.ID}, nil
}

func (c *chat) leave(client *ws.Client, _ *struct{}) error {
	for _, room := range client.GetRooms() {
		client.LeaveRoom(room)
		c.markChanged(room)
	}
	return nil
}

// send passes a message on to the sender's room, the sender included, so that all members read
// the same messages in the same order.
func (c *chat) send(client *ws.Client, req *sendRequest) error {
	rooms := client.GetRooms()
	if len(rooms) == 0 {
		return ws.NewClientError(409, "Join a room first")
	}
	text := strings.TrimSpace(req.Text)
	if !validLength(text, maxText) {
		return ws.NewClientError(400, "A message needs 1 to 2000 characters")
	}
	c.messages.Add(1)
	message := chatMessage{ID: client.ID, Name: nameOf(client), Text: text}
	return c.m.BroadcastToRoom(rooms[0], notify("chat.message", message), nil)
}

// publish sends stats to all clients, and presence to the rooms that changed, until ctx ends.
func (c *chat) publish(ctx context.Context) {
	statsTick, presenceTick := time.NewTicker(statsInterval), time.NewTicker(presenceInterval)
	defer statsTick.Stop()
	defer presenceTick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-statsTick.C:
			perSecond := float64(c.messages.Swap(0)) / statsInterval.Seconds()
			c.m.BroadcastAll(notify("stats", stats{c.m.GetClientCount(), perSecond}))
		case <-presenceTick.C:
			c.publishPresence()
		}
	}
}

// publishPresence sends the names of the members to each changed room. It collects the changes
// between two ticks: when 1,000 clients of a room reconnect together, it sends a few
// notifications and not 1,000.
func (c *chat) publishPresence() {
	c.mu.Lock()
	rooms := c.changed
	c.changed = make(map[string]struct{})
	c.mu.Unlock()
	for room := range rooms {
		clients := c.m.GetRoomMembers(room)
		p := presence{Room: room, Count: len(clients), Members: []member{}}
		for _, client := range clients[:min(len(clients), maxMembers)] {
			p.Members = append(p.Members, member{client.ID, nameOf(client)})
		}
		slices.SortFunc(p.Members, func(a, b member) int {
			return strings.Compare(strings.ToLower(a.Name)+a.ID, strings.ToLower(b.Name)+b.ID)
		})
		err := c.m.BroadcastToRoom(room, notify("presence", p), nil)
		if err != nil && !errors.Is(err, ws.ErrRoomNotFound) {
			slog.Warn("presence", "room", room, "err", err)
		}
	}
}

func (c *chat) markChanged(rooms ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, room := range rooms {
		c.changed[room] = struct{}{}
	}
}

// notify encodes a notification, once for all receivers.
func notify(event string, data any) []byte {
	msg, err := ws.NewNotifyMessageSimple(event, data)
	if err != nil {
		panic(err) // the types above always encode
	}
	b, err := json.Marshal(msg)
	if err != nil {
		panic(err)
	}
	return b
}

func nameOf(client *ws.Client) string {
	name, _ := client.GetMetadata("name")
	s, _ := name.(string)
	return s
}

// visible returns s without invisible characters, and without space around it, so that two names
// that look the same are the same.
func visible(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point) {
			return -1
		}
		return r
	}, s))
}

func validLength(s string, limit int) bool {
	return s != "" && utf8.RuneCountInString(s) <= limit
}
