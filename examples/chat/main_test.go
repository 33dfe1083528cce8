package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
)

// wait bounds each step of a test, generously: the machine may be busy.
const wait = time.Minute

var anywhere = addresses{page: "127.0.0.1:0", native: "127.0.0.1:0"}

func TestShutdownClosesClientsWithGoingAway(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	type change struct {
		addr string
		client.State
	}
	states := make(chan change, 1000)
	for _, addr := range []string{s.page, s.native} {
		p := s.enter(t, "Ada", "lobby", atAddress(addr), client.WithOnState(func(state client.State) {
			states <- change{addr, state}
		}))
		p.say("hello")
	}
	s.stop()
	require.NoError(t, s.wait())
	lost := make(map[string]bool)
	for !lost[s.page] || !lost[s.native] {
		state := receive(t, states)
		if state.Phase != client.Waiting || lost[state.addr] { // it connects again, in vain
			continue
		}
		var closed *client.CloseError
		require.ErrorAs(t, state.Err, &closed)
		lost[state.addr] = closed.Code == 1001
	}
}

// The server closes first at a shutdown, so that its old connections linger on the port.
func TestRestartOnTheSameNativePort(t *testing.T) {
	first := startServer(t, anywhere, options{history: 10})
	first.enter(t, "Ada", "lobby").say("hello")
	first.stop()
	require.NoError(t, first.wait())

	second := startServer(t, addresses{"127.0.0.1:0", first.native}, options{history: 10})
	assert.Equal(t, first.native, second.native)
	second.enter(t, "Ada", "lobby").say("hello again")
}

func TestWithoutNativePath(t *testing.T) {
	s := startServer(t, addresses{page: "127.0.0.1:0"}, options{history: 10})
	assert.Empty(t, s.native)
	s.enter(t, "Ada", "lobby", atAddress(s.page)).say("hello")
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, listen := range map[string]addresses{
		"page":   {page: taken.Addr().String()},
		"native": {"127.0.0.1:0", taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), listen, options{history: 10}, nil)
			assert.ErrorContains(t, err, taken.Addr().String())
		})
	}
}

func TestPageIsServed(t *testing.T) {
	s := startServer(t, anywhere, options{history: 10})
	for path, contentType := range map[string]string{
		"/": "text/html", "/main.js": "javascript", "/style.css": "text/css", "/icon.svg": "svg",
	} {
		res, err := http.Get("http://" + s.page + path)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 200, res.StatusCode, path)
		assert.Contains(t, res.Header.Get("Content-Type"), contentType, path)
		assert.Equal(t, policy, res.Header.Get("Content-Security-Policy"), path)
		assert.NotEmpty(t, body, path)
	}
}

// server is a running chat.
type server struct {
	addresses
	stop context.CancelFunc
	wait func() error
}

func startServer(t *testing.T, listen addresses, o options) *server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan addresses, 1), make(chan error, 1)
	go func() { ended <- run(ctx, listen, o, ready) }()
	s := &server{stop: stop, wait: sync.OnceValue(func() error { return <-ended })}
	t.Cleanup(func() {
		stop()
		assert.NoError(t, s.wait())
	})
	select {
	case s.addresses = <-ready:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	}
	return s
}

// person is a client of the chat, in one room.
type person struct {
	t        *testing.T
	client   *client.Client
	room     *client.Room
	welcomes chan Welcome
	messages chan ChatMessage
	gaps     chan client.Gap
	presence chan Presence
	typed    chan Typing
}

type personOption struct {
	addr, key string
	last      int
	since     client.Position
}

func atAddress(addr string) personOption { return personOption{addr: addr} }

// newPerson connects a person that is in no room yet. Options are a personOption or a client.Option.
func (s *server) newPerson(t *testing.T, name, room string, opts ...any) (*person, personOption) {
	t.Helper()
	var o personOption
	var clientOptions []client.Option
	for _, opt := range opts {
		switch opt := opt.(type) {
		case personOption:
			o = opt
		case client.Option:
			clientOptions = append(clientOptions, opt)
		}
	}
	if o.addr == "" {
		o.addr = s.native
	}
	query := url.Values{"name": {name}, "key": {o.key}}
	c, err := client.New("ws://"+o.addr+"/ws?"+query.Encode(), clientOptions...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	p := &person{
		t: t, client: c, room: c.Room(room), welcomes: notifications[Welcome](c, "chat.welcome"),
		presence: notifications[Presence](c, "chat.presence"), typed: notifications[Typing](c, "chat.typed"),
		gaps: make(chan client.Gap, 100),
	}
	p.messages = notifications[ChatMessage](p.room, "chat.message")
	p.room.OnGap(func(gap client.Gap) { p.gaps <- gap })
	require.NoError(t, c.Connect(p.limit()))
	return p, o
}

// enter connects a person and joins the room.
func (s *server) enter(t *testing.T, name, room string, opts ...any) *person {
	t.Helper()
	p, o := s.newPerson(t, name, room, opts...)
	join := []client.JoinOption{client.Last(o.last)}
	if o.since.Epoch != "" {
		join = []client.JoinOption{client.Since(o.since)}
	}
	_, err := p.room.Join(p.limit(), join...)
	require.NoError(t, err)
	return p
}

// notifications returns the data of the notifications of an event.
func notifications[T any](source interface {
	On(event string, fn func(client.Notify)) (off func())
}, event string,
) chan T {
	ch := make(chan T, 1000)
	source.On(event, func(n client.Notify) {
		var data T
		if json.Unmarshal(n.Data, &data) == nil {
			ch <- data
		}
	})
	return ch
}

// limit returns a context that bounds one step.
func (p *person) limit() context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), wait)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *person) say(text string) {
	p.t.Helper()
	require.NoError(p.t, p.send(text))
}

func (p *person) send(text string) error {
	return p.client.Request(p.limit(), "chat.send", Send{Room: p.room.Name(), ID: "1", Text: text}, nil)
}

// reads asserts that the next messages have these texts.
func (p *person) reads(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		require.Equal(p.t, text, receive(p.t, p.messages).Text)
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(wait):
		require.FailNow(t, "nothing within a minute")
		panic("unreachable")
	}
}
