package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
)

func TestChatAcrossBothPaths(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	ada, linus := s.enter(t, "Ada", "lobby", atAddress(s.page)), s.enter(t, " Linus ", "lobby")
	ada.say(" Hello, native ")
	linus.say("Hello, net/http")
	for _, p := range []*person{ada, linus} { // senders included, in the same order
		m := receive(t, p.messages)
		assert.Equal(t, ChatMessage{ID: "1", User: receive(t, ada.welcomes).User, Name: "Ada", Text: "Hello, native"}, m)
		ada.welcomes <- Welcome{m.User}
		m = receive(t, p.messages)
		assert.Equal(t, "Hello, net/http", m.Text)
		assert.Equal(t, "Linus", m.Name)
	}
}

func TestNewcomersReadTheHistory(t *testing.T) {
	s := startServer(t, anywhere, options{history: 100})
	ada := s.enter(t, "Ada", "lobby")
	var texts []string
	for i := range 60 {
		texts = append(texts, fmt.Sprint("message ", i))
		ada.say(texts[i])
	}
	s.enter(t, "Linus", "lobby", personOption{last: 50}).reads(texts[10:]...)
	s.enter(t, "Grace", "another room", personOption{last: 50}).say("only here")
	ada.reads(texts...)
	ada.say("not there")
	ada.reads("not there")
}

// A client that has lost its connection reads what was sent meanwhile, once.
func TestComesBackWithoutAHole(t *testing.T) {
	s := startServer(t, anywhere, options{history: 100})
	var conn atomic.Value
	var down atomic.Bool
	dialer := client.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if down.Load() {
			return nil, fmt.Errorf("the network is down")
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if err == nil {
			conn.Store(c)
		}
		return c, err
	})
	ada, linus := s.enter(t, "Ada", "lobby"), s.enter(t, "Linus", "lobby", dialer)
	ada.say("before")
	linus.reads("before")
	down.Store(true)
	require.NoError(t, conn.Load().(net.Conn).Close())
	for i := range 20 {
		ada.say(fmt.Sprint("meanwhile ", i))
	}
	down.Store(false)
	for i := range 20 {
		linus.reads(fmt.Sprint("meanwhile ", i))
	}
	ada.say("after")
	linus.reads("after")
	assert.Empty(t, linus.gaps)
}

func TestMissedMessagesAreNamed(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	ada := s.enter(t, "Ada", "lobby")
	ada.say("seen")
	ada.reads("seen")
	position := ada.room.Position()
	for i := range 30 {
		ada.say(fmt.Sprint("message ", i))
	}
	linus := s.enter(t, "Linus", "lobby", personOption{since: position})
	assert.EqualValues(t, 20, receive(t, linus.gaps).Lost())
	linus.reads("message 20", "message 21")
}

// A page repeats a request on a new connection, with the same key: the message is sent once.
func TestRepeatedMessageIsSentOnce(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	ada := s.enter(t, "Ada", "lobby")
	query := url.Values{"name": {"Linus"}, "key": {strings.Repeat("k", minKey)}}
	request := func(conn net.Conn, text string) {
		t.Helper()
		require.NoError(t, wsutil.WriteClientText(conn, []byte(text)))
		for {
			answer, err := wsutil.ReadServerText(conn)
			require.NoError(t, err)
			if strings.Contains(string(answer), `"request_id"`) {
				require.Contains(t, string(answer), `"code":200`)
				return
			}
		}
	}
	for range 2 {
		conn, _, _, err := gobwas.Dial(t.Context(), "ws://"+s.native+"/ws?"+query.Encode())
		require.NoError(t, err)
		request(conn, `{"type":"request","event":"ws.join","request_id":"j","data":{"room":"lobby"}}`)
		request(conn, `{"type":"request","event":"chat.send","request_id":"random","idempotent":true,`+
			`"data":{"room":"lobby","id":"x","text":"once"}}`)
		require.NoError(t, conn.Close())
	}
	ada.say("the end")
	ada.reads("once", "the end")
}

func TestTypingIsForTheOthersOnly(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	ada, linus := s.enter(t, "Ada", "lobby"), s.enter(t, "Linus", "lobby")
	require.NoError(t, ada.client.Request(ada.limit(), "chat.typing", InRoom{"lobby"}, nil))
	assert.Equal(t, Typing{"lobby", receive(t, ada.welcomes).User, "Ada"}, receive(t, linus.typed))
	ada.say("done")
	ada.reads("done") // behind a notice, if it had got one
	assert.Empty(t, ada.typed)
	grace := s.enter(t, "Grace", "lobby", personOption{last: 10})
	grace.reads("done")
	assert.Empty(t, grace.typed, "notices are not kept")
}

func TestRefusedJoins(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	long := strings.Repeat("é", maxName)
	tests := map[string]struct{ name, room, message string }{
		"longest names":    {long, long, ""},
		"no name":          {" ", "lobby", "Your name needs 1 to 24 characters."},
		"invisible name":   {"\u200b\u2060\u3164", "lobby", "Your name needs 1 to 24 characters."},
		"long name":        {long + "e", "lobby", "Your name needs 1 to 24 characters."},
		"no room":          {"Ada", "", "invalid data: room is missing"},
		"long room":        {"Ada", long + "e", "The name of the room needs 1 to 24 characters."},
		"invisible letter": {"Ada", "lob\u200bby", "The name of the room has invisible characters."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, _ := s.newPerson(t, tt.name, tt.room)
			_, err := p.room.Join(p.limit())
			if tt.message == "" {
				require.NoError(t, err)
				return
			}
			var refused *client.ServerError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, 400, refused.Code)
			assert.Equal(t, tt.message, refused.Message)
		})
	}
}

func TestRefusedRequests(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	p := s.enter(t, "Ada", "lobby")
	tests := map[string]struct {
		event string
		data  any
		code  int
	}{
		"longest text":     {"chat.send", Send{"lobby", strings.Repeat("x", maxID), strings.Repeat("🌍", maxText)}, 0},
		"long text":        {"chat.send", Send{"lobby", "1", strings.Repeat("x", maxText+1)}, 400},
		"no text":          {"chat.send", Send{"lobby", "1", " \n "}, 400},
		"no ID":            {"chat.send", Send{"lobby", "", "hello"}, 400},
		"long ID":          {"chat.send", Send{"lobby", strings.Repeat("x", maxID+1), "hello"}, 400},
		"number as text":   {"chat.send", map[string]any{"room": "lobby", "text": 7}, 400},
		"another room":     {"chat.send", Send{"attic", "1", "hello"}, 409},
		"typing elsewhere": {"chat.typing", InRoom{"attic"}, 409},
		"who is elsewhere": {"chat.who", InRoom{"attic"}, 409},
		"unknown event":    {"chat.shout", nil, 404},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := p.client.Request(p.limit(), tt.event, tt.data, nil)
			if tt.code == 0 {
				require.NoError(t, err)
				return
			}
			var refused *client.ServerError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, tt.code, refused.Code)
		})
	}
}

func TestTooManyMessagesAreRefused(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10, rate: 0.01})
	p := s.enter(t, "Ada", "lobby")
	var refused *client.ServerError
	for i := range 21 { // a burst of 20, with the join
		if err := p.send("again"); err != nil {
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, 19, i)
			break
		}
	}
	require.NotNil(t, refused)
	assert.Equal(t, 429, refused.Code)
}

// The same key is the same person. Nobody reads the key of another.
func TestKeys(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	user := func(key string) string {
		p, _ := s.newPerson(t, "Ada", "lobby", personOption{key: key})
		return receive(t, p.welcomes).User
	}
	key := strings.Repeat("k", minKey)
	assert.Equal(t, user(key), user(key))
	assert.NotEqual(t, user(key), user(key+"k"))
	assert.NotContains(t, user(key), "k")
	assert.NotEqual(t, user("short"), user("short"), "a key that can be guessed is none")
	assert.NotEqual(t, user(""), user(""))
}
