package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/wstest"
)

// hall is a chat without a clock: a test makes the steps of its presence.
type hall struct {
	t       *testing.T
	c       *chat
	server  *wstest.Server
	now     time.Time
	changes []*Presence
}

func newHall(t *testing.T) *hall {
	t.Helper()
	c, err := newChat(options{history: 10})
	require.NoError(t, err)
	h := &hall{t: t, c: c, server: wstest.Start(t, c.m), now: time.Now()}
	c.presence.announce = func(p *Presence) { h.changes = append(h.changes, p) }
	return h
}

// enter adds a client of that name to the room.
func (h *hall) enter(name, room string) *ws.Client {
	h.t.Helper()
	before := h.clients()
	h.server.Dial(nil)
	require.Eventually(h.t, func() bool { return len(h.clients()) == len(before)+1 }, wait, time.Millisecond)
	for id, client := range h.clients() {
		if before[id] == nil {
			client.SetMetadata("name", name)
			require.NoError(h.t, client.JoinRoom(room))
			return client
		}
	}
	panic("unreachable")
}

func (h *hall) clients() map[string]*ws.Client {
	clients := make(map[string]*ws.Client)
	h.c.m.RangeClients(func(c *ws.Client) bool {
		clients[c.ID] = c
		return true
	})
	return clients
}

// after lets time pass, makes a step, and returns the change that the room got, or nil.
func (h *hall) after(d time.Duration, room string) *Presence {
	h.t.Helper()
	h.now = h.now.Add(d)
	h.changes = nil
	h.c.presence.mark(room) // the events come when they come
	h.c.presence.step(h.now)
	require.LessOrEqual(h.t, len(h.changes), 1)
	if len(h.changes) == 0 {
		return nil
	}
	return h.changes[0]
}

func TestPresenceCountsNamesNotTabs(t *testing.T) {
	h := newHall(t)
	tab := h.enter("Ada", "lobby")
	assert.Equal(t, &Presence{Room: "lobby", Version: 1, Count: 1, Joined: []string{"Ada"}}, h.after(0, "lobby"))
	h.enter("Ada", "lobby")
	assert.Nil(t, h.after(0, "lobby"), "a second tab is no news")
	h.enter("bob", "lobby")
	h.enter("Carl", "lobby")
	assert.Equal(t, &Presence{Room: "lobby", Version: 2, Count: 3, Joined: []string{"bob", "Carl"}}, h.after(0, "lobby"))
	tab.LeaveRoom("lobby")
	assert.Nil(t, h.after(2*absence, "lobby"), "the other tab is there")
	assert.Nil(t, h.after(2*absence, "lobby"))
	assert.Equal(t, &Presence{Room: "lobby", Version: 2, Count: 3, Names: []string{"Ada", "bob", "Carl"}},
		h.c.presence.of("lobby"))
	assert.Equal(t, &Presence{Room: "attic"}, h.c.presence.of("attic"))
}

func TestPresenceWaitsForThoseWhoComeBack(t *testing.T) {
	h := newHall(t)
	h.enter("Ada", "lobby")
	bob := h.enter("Bob", "lobby")
	require.NotNil(t, h.after(0, "lobby"))
	bob.LeaveRoom("lobby")
	assert.Nil(t, h.after(0, "lobby"))
	assert.Nil(t, h.after(absence-1, "lobby"))
	require.NoError(t, bob.JoinRoom("lobby"))
	assert.Nil(t, h.after(absence, "lobby"), "he is back")
	bob.LeaveRoom("lobby")
	assert.Nil(t, h.after(absence, "lobby"), "a new absence")
	assert.Equal(t, &Presence{Room: "lobby", Version: 2, Count: 1, Left: []string{"Bob"}}, h.after(absence, "lobby"))
}

// A room is looked at until its last absence has ended, also without another event.
func TestPresenceForgetsEmptyRooms(t *testing.T) {
	h := newHall(t)
	ada := h.enter("Ada", "lobby")
	require.NotNil(t, h.after(0, "lobby"))
	ada.LeaveRoom("lobby")
	require.Nil(t, h.after(0, "lobby"))
	h.now = h.now.Add(absence)
	h.c.presence.step(h.now)
	require.Len(t, h.changes, 1)
	assert.Equal(t, &Presence{Room: "lobby", Version: 2, Count: 0, Left: []string{"Ada"}}, h.changes[0])
	assert.Empty(t, h.c.presence.rooms)
}

// A change has a bounded number of names.
func TestPresenceOfManyNames(t *testing.T) {
	h := newHall(t)
	ada := h.enter("Ada", "lobby")
	require.NotNil(t, h.after(0, "lobby"))
	clients := make([]*ws.Client, 0, maxNames+5)
	for i := range maxNames + 5 {
		clients = append(clients, h.enter(fmt.Sprintf("n%03d", i), "lobby"))
	}
	change := h.after(0, "lobby")
	require.NotNil(t, change)
	assert.Empty(t, change.Joined)
	assert.Equal(t, maxNames+6, change.Count)
	assert.Len(t, change.Names, maxNames)
	assert.Equal(t, []string{"Ada", "n000"}, change.Names[:2])
	ada.LeaveRoom("lobby")
	clients[0].LeaveRoom("lobby")
	h.after(0, "lobby")
	change = h.after(absence, "lobby")
	assert.Equal(t, []string{"Ada", "n000"}, change.Left)
	assert.Equal(t, "n001", h.c.presence.of("lobby").Names[0])
}

// With a real clock: joins, closed connections and answers.
func TestPresenceFollowsConnections(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	stays, falls := s.enter(t, "Stays", "lobby"), s.enter(t, "Falls", "lobby", atAddress(s.page))
	until := func(matches func(Presence) bool) {
		t.Helper()
		for !matches(receive(t, stays.presence)) {
		}
	}
	until(func(p Presence) bool { return p.Count == 2 })
	var all Presence
	require.NoError(t, falls.client.Request(falls.limit(), "chat.who", InRoom{"lobby"}, &all))
	assert.Equal(t, []string{"Falls", "Stays"}, all.Names)
	falls.client.Close()
	until(func(p Presence) bool { return p.Count == 1 && p.Left[0] == "Falls" })
	require.NoError(t, stays.client.Request(stays.limit(), "chat.who", InRoom{"lobby"}, &all))
	assert.Equal(t, []string{"Stays"}, all.Names)
}
