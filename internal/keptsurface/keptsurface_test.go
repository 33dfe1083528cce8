// Package keptsurface_test is an application of the framework whose surface the library keeps.
// It uses each kept name in the way of that framework's documentation: a name that
// changes does not compile here.
package keptsurface_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

type loginRequest struct {
	Name string `json:"name"`
}

type loginResponse struct {
	Greeting string `json:"greeting"`
}

type roomRequest struct {
	Room string `json:"room"`
}

// counts is an implementation of Metrics with its 13 methods and no others.
type counts struct {
	mu    sync.Mutex
	calls map[string]int // guarded by mu
}

var _ ws.Metrics = (*counts)(nil)

func (c *counts) count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[name]++
}

func (c *counts) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[name]
}

func (c *counts) IncrementConnections()                      { c.count("connections") }
func (c *counts) DecrementConnections()                      { c.count("disconnections") }
func (c *counts) SetConnectionCount(int)                     { c.count("connection count") }
func (c *counts) IncrementMessageCount(event string)         { c.count("messages of " + event) }
func (c *counts) RecordMessageLatency(event string, _ int64) { c.count("latency of " + event) }
func (c *counts) IncrementMessageErrors(event string)        { c.count("errors of " + event) }
func (c *counts) SetRoomCount(int)                           { c.count("room count") }
func (c *counts) SetRoomMemberCount(room string, _ int)      { c.count("members of " + room) }
func (c *counts) RecordBroadcastLatency(int64)               { c.count("broadcast latency") }
func (c *counts) IncrementDroppedMessages()                  { c.count("dropped") }
func (c *counts) IncrementReadErrors()                       { c.count("read errors") }
func (c *counts) IncrementWriteErrors()                      { c.count("write errors") }
func (c *counts) IncrementInvalidMessages()                  { c.count("invalid") }

// application is a Manager with handlers, and the notes that they take.
type application struct {
	*ws.Manager
	metrics *counts
	events  chan ws.EventType
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{metrics: &counts{}, events: make(chan ws.EventType, 1000)}
	m, err := ws.NewManager(
		ws.WithMaxConnections(1000),
		ws.WithHeartbeatInterval(30*time.Second),
		ws.WithHeartbeatTimeout(90*time.Second),
		ws.WithMessageSizeLimit(1<<20),
		ws.WithMessageQueueSize(256),
		ws.WithEnableCompression(false),
		ws.WithCheckOriginWhitelist([]string{"https://example.com"}),
		ws.WithCheckOrigin(func(*http.Request) bool { return false }),
		ws.WithAllowAllOrigins(),
		ws.WithMetrics(a.metrics),
	)
	require.NoError(t, err)
	a.Manager = m
	a.use()
	a.subscribe()
	a.handleLogin(t)
	a.handleRooms(t)
	m.Router.Freeze()
	return a
}

// use adds a middleware that returns next().
func (a *application) use() {
	_ = a.Use(func(c *ws.Client, msg *ws.Message, next ws.NextFunc) error {
		if _, ok := c.GetMetadata("banned"); ok {
			return ws.NewClientError(403, "banned")
		}
		c.SetMetadata("last", msg.Event)
		return next()
	})
}

func (a *application) subscribe() {
	for _, kind := range []ws.EventType{
		ws.EventClientConnected, ws.EventClientDisconnected, ws.EventMessageReceived, ws.EventMessageSent,
		ws.EventRoomJoined, ws.EventRoomLeft, ws.EventError,
	} {
		a.Subscribe(kind, func(e ws.Event) {
			if e.ClientID == "" || e.Time.IsZero() {
				panic(fmt.Sprint("event without client or time: ", e))
			}
			a.events <- e.Type
		})
	}
}

func (a *application) handleLogin(t *testing.T) {
	t.Helper()
	require.NoError(t, ws.Handle(a.Manager, "user.login", func(c *ws.Client, req *loginRequest) (*loginResponse, error) {
		if req.Name == "" {
			return nil, ws.NewClientError(422, "name is empty")
		}
		return &loginResponse{Greeting: fmt.Sprintf("hello %s, user %d", req.Name, c.UserID)}, nil
	}))
	require.NoError(t, ws.HandleOnly(a.Manager, "user.self", func(c *ws.Client) (*[]string, error) {
		rooms := c.GetRooms()
		return &rooms, nil
	}))
	require.NoError(t, a.Register("user.raw", func(c *ws.Client, msg *ws.Message) error {
		var req loginRequest
		if err := msg.Unmarshal(&req); err != nil {
			return c.SendError(msg.RequestID, 400, "bad data")
		}
		return c.SendResponse(msg.RequestID, 200, "raw", req)
	}))
	require.NoError(t, a.Register("user.fail", func(*ws.Client, *ws.Message) error {
		return errors.New("a secret of the server")
	}))
	require.ErrorIs(t, a.Register("user.raw", nil), ws.ErrHandlerExists)
}

func (a *application) handleRooms(t *testing.T) {
	t.Helper()
	require.NoError(t, ws.Handle0(a.Manager, "room.join", func(c *ws.Client, req *roomRequest) error {
		return c.JoinRoom(req.Room)
	}))
	require.NoError(t, ws.Handle0(a.Manager, "room.leave", func(c *ws.Client, req *roomRequest) error {
		c.LeaveRoom(req.Room)
		return nil
	}))
	require.NoError(t, ws.Handle0(a.Manager, "room.say", func(c *ws.Client, req *roomRequest) error {
		return a.BroadcastToRoom(req.Room, []byte(`"said"`), c)
	}))
}

// expect waits for events until each of the kinds has come.
func (a *application) expect(t *testing.T, kinds ...ws.EventType) {
	t.Helper()
	missing := make(map[ws.EventType]bool)
	for _, kind := range kinds {
		missing[kind] = true
	}
	deadline := time.After(time.Minute)
	for len(missing) > 0 {
		select {
		case kind := <-a.events:
			delete(missing, kind)
		case <-deadline:
			t.Fatalf("events that did not come: %v", missing)
		}
	}
}

func TestRequests(t *testing.T) {
	a := newApplication(t)
	c := wstest.Start(
		t, a.Manager, ws.WithUserID(7), ws.WithMetadata("plan", "free"), ws.WithClientID("device-1"),
	).Dial(nil)
	reply := c.Request("user.login", loginRequest{Name: "Ann"})
	assert.Equal(t, 200, reply.Code)
	assert.JSONEq(t, `{"greeting":"hello Ann, user 7"}`, string(reply.Data))
	assert.NotEmpty(t, reply.TraceID)
	assert.NotZero(t, reply.Timestamp)
	for event, code := range map[string]int{"user.login": 422, "user.fail": 500, "user.unknown": 404} {
		assert.Equal(t, code, c.Request(event, loginRequest{}).Code, event)
	}
	assert.Equal(t, "raw", c.Request("user.raw", loginRequest{}).Message)
	assert.Equal(t, 400, c.Request("user.raw", 1).Code)
	assert.Equal(t, 400, c.Request("user.login", 1).Code)
	require.ErrorIs(t, a.Register("late", func(*ws.Client, *ws.Message) error { return nil }), ws.ErrRouterFrozen)
	a.expect(t, ws.EventClientConnected, ws.EventMessageReceived, ws.EventError)
	for _, name := range []string{
		"connections", "connection count", "messages of user.login", "latency of user.login", "errors of user.fail",
	} {
		assert.NotZero(t, a.metrics.of(name), name)
	}
}

func TestRooms(t *testing.T) {
	a := newApplication(t)
	s := wstest.Start(t, a.Manager)
	ann, bob := s.Dial(nil), s.Dial(nil)
	lobby := roomRequest{Room: "lobby"}
	r, err := a.CreateRoom("lobby", map[string]any{"topic": "all"})
	require.NoError(t, err)
	assert.Equal(t, "lobby", r.ID())
	_, err = a.CreateRoom("lobby", nil)
	require.ErrorIs(t, err, ws.ErrRoomExists)

	for _, c := range []*wstest.Client{ann, bob} {
		assert.Equal(t, 200, c.Request("room.join", lobby).Code)
	}
	_, ok := a.GetRoom("lobby")
	assert.True(t, ok)
	assert.Equal(t, 1, a.GetRoomCount())
	assert.Len(t, a.GetRoomMembers("lobby"), 2)
	assert.JSONEq(t, `["lobby"]`, string(ann.Request("user.self", nil).Data))
	assert.Equal(t, 200, ann.Request("room.say", lobby).Code)
	assert.JSONEq(t, `"said"`, bob.Next())
	assert.Equal(t, 200, bob.Request("room.leave", lobby).Code)
	require.ErrorIs(t, a.BroadcastToRoom("attic", nil, nil), ws.ErrRoomNotFound)
	a.DeleteRoom("lobby")
	assert.Equal(t, 0, a.GetRoomCount())
	a.expect(t, ws.EventRoomJoined, ws.EventRoomLeft)
}

func TestClients(t *testing.T) {
	a := newApplication(t)
	s := wstest.Start(t, a.Manager, ws.WithUserID(7))
	c := s.Dial(nil)
	c.Request("user.self", nil)
	var client *ws.Client
	a.RangeClients(func(found *ws.Client) bool {
		client = found
		return false
	})
	require.NotNil(t, client)
	found, ok := a.GetClient(client.ID)
	assert.True(t, ok)
	assert.Same(t, client, found)
	assert.Equal(t, 1, a.GetClientCount())
	assert.NotEmpty(t, client.RemoteAddr())
	last, _ := client.GetMetadata("last")
	assert.Equal(t, "user.self", last)

	require.NoError(t, client.SendBytes([]byte("1")))
	assert.Equal(t, "1", c.Next())
	require.NoError(t, client.SendBytesHigh([]byte("2")))
	assert.Equal(t, "2", c.Next())
	require.NoError(t, client.SendJSON(map[string]int{"n": 3}))
	assert.JSONEq(t, `{"n":3}`, c.Next())
	a.BroadcastAll([]byte("4"))
	assert.Equal(t, "4", c.Next())
	_ = a.BroadcastToUser(7, []byte("5"))
	assert.Equal(t, "5", c.Next())
	a.expect(t, ws.EventMessageSent)

	client.Close()
	code, _ := c.ExpectClose()
	assert.Equal(t, 1000, code)
	a.expect(t, ws.EventClientDisconnected)
	assert.True(t, client.IsClosed())
	require.ErrorIs(t, client.SendBytes(nil), ws.ErrConnectionClosed)
	assert.Zero(t, a.EventBus.GetDroppedEventCount())
	a.EventBus.ResetDroppedEventCount()
}

func TestMessages(t *testing.T) {
	for name, create := range map[string]func(string, any) (*ws.Message, error){
		ws.TypeRequest: ws.NewMessage, ws.TypeNotify: ws.NewNotifyMessage,
	} {
		m, err := create("user.online", loginRequest{Name: "Ann"}) // pooled
		require.NoError(t, err)
		assert.Equal(t, name, m.Type)
		assert.Equal(t, "user.online", m.Event)
		assert.JSONEq(t, `{"name":"Ann"}`, string(m.Data))
		m.Release()
	}
	for name, create := range map[string]func(string, any) (*ws.Message, error){
		ws.TypeRequest: ws.NewMessageSimple, ws.TypeNotify: ws.NewNotifyMessageSimple,
	} {
		m, err := create("user.online", nil)
		require.NoError(t, err)
		assert.Equal(t, name, m.Type)
		assert.NotZero(t, m.Timestamp)
	}
	_, _ = ws.Response{Type: ws.TypeResponse}, ws.ErrorResponse{Type: ws.TypeError}
}

func TestConfig(t *testing.T) {
	config := ws.DefaultConfig()
	require.NoError(t, config.Validate())
	assert.Equal(t, 10_000, config.MaxConnections)
	assert.Equal(t, 5*time.Minute, config.Room.CleanupInterval)
	assert.Equal(t, 10*time.Minute, config.Room.EmptyRoomTTL)
	assert.Zero(t, config.Room.MaxRoomSize)
	assert.Equal(t, 5*time.Second, config.Broadcast.Timeout)
	assert.Positive(t, config.Broadcast.QueueSize)
	assert.Equal(t, 10*time.Second, config.HandshakeTimeout)
	config.Metrics = ws.NoopMetrics{}
	config.Room.MaxRoomSize, config.Broadcast.QueueSize = 10, 64
	m, err := ws.NewManager(ws.WithConfig(config))
	require.NoError(t, err)
	require.NoError(t, m.Shutdown(context.Background()))
	config.MaxConnections = -1
	_, err = ws.NewManager(ws.WithConfig(config))
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
}

func TestErrors(t *testing.T) {
	for _, err := range []error{
		ws.ErrTooManyConnections, ws.ErrClientIDExists, ws.ErrClientNotFound, ws.ErrConnectionClosed, ws.ErrRoomNotFound,
		ws.ErrRoomExists, ws.ErrRoomFull, ws.ErrAlreadyInRoom, ws.ErrHandlerNotFound, ws.ErrHandlerExists, ws.ErrRouterFrozen,
		ws.ErrInvalidMessage, ws.ErrInvalidMessageType, ws.ErrMessageTooLarge, ws.ErrChannelFull, ws.ErrBroadcastTimeout,
		ws.ErrInvalidConfig,
	} {
		assert.ErrorIs(t, fmt.Errorf("wrapped: %w", err), err)
	}
	var clientError *ws.ClientError
	require.ErrorAs(t, error(ws.NewClientError(409, "taken")), &clientError)
}
