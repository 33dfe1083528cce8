package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/qi-realtime/ws"
)

const (
	maxName  = 24   // characters of a name, and of a room's name
	maxText  = 2000 // characters of a message
	maxID    = 64   // bytes of a message's ID
	minKey   = 16   // bytes of a person's key
	typedTTL = 3 * time.Second
)

// The data of requests and events. TypeScript types are generated from them, see TestAPI.
type (
	// Welcome is the first event of each connection.
	Welcome struct {
		// User is the ID of this person in messages and notices.
		User string `json:"user"`
	}
	// Send is a message to a room. The page draws the ID at random: it recognizes its own
	// message by it, and shows a message that was sent twice once.
	Send struct {
		Room string `json:"room"`
		ID   string `json:"id"`
		Text string `json:"text"`
	}
	// ChatMessage is a message of a room, kept in the room's history.
	ChatMessage struct {
		ID   string `json:"id"`
		User string `json:"user"`
		Name string `json:"name"`
		Text string `json:"text"`
	}
	// InRoom names the room of a request.
	InRoom struct {
		Room string `json:"room"`
	}
	// Typing says that a person is writing. It has no end: receivers forget it after a while.
	Typing struct {
		Room string `json:"room"`
		User string `json:"user"`
		Name string `json:"name"`
	}
)

// chat is the service: a manager with the handlers of the chat. Safe for concurrent use.
type chat struct {
	m        *ws.Manager
	options  options
	presence *presence

	welcome   ws.TypedEvent[Welcome]
	messages  ws.TypedEvent[ChatMessage]
	typed     ws.TypedEvent[Typing]
	invalid   ws.ErrorKind
	notInRoom ws.ErrorKind
}

// options are the settings of the service that main takes from flags.
type options struct {
	history int     // messages that a room keeps
	rate    float64 // messages of one client that are accepted in a second; 0 is no limit
}

// newChat returns the service, ready to run. The options of the manager are added to its own.
func newChat(o options, opts ...ws.Option) (*chat, error) {
	c := &chat{options: o}
	m, err := ws.NewManager(append(opts,
		ws.WithAuthenticate(authenticate),
		ws.WithOnConnect(func(client *ws.Client) error {
			return c.welcome.Send(client, Welcome{client.User()})
		}),
		// Typing, joins and messages count. A page that is refused tries again later.
		ws.WithRateLimit(ws.RateLimit{Messages: o.rate, MessageBurst: 20, Tolerance: 100}),
		ws.WithIdempotency(5*time.Minute), // longer than a page waits for an answer
		ws.WithMessageSizeLimit(32<<10),
		ws.WithMaxRoomsPerClient(4),
		ws.WithHistoryBudget(64<<20),
	)...)
	if err != nil {
		return nil, err
	}
	c.m = m
	c.welcome = ws.DefineEvent[Welcome](m, "chat.welcome")
	c.messages = ws.DefineEvent[ChatMessage](m, "chat.message")
	c.typed = ws.DefineEvent[Typing](m, "chat.typed")
	changes := ws.DefineEvent[Presence](m, "chat.presence")
	c.invalid = ws.DefineError(m, 400, "invalid")
	c.notInRoom = ws.DefineError(m, 409, "notInRoom")
	c.presence = newPresence(m, func(p *Presence) { c.announce(p.Room, changes.Name(), p) })
	return c, errors.Join(
		ws.HandleJoin(m, c.authorize),
		ws.Handle(m, "chat.send", c.send, ws.Doc("Sends a message to a room, and returns its position.")),
		ws.Handle0(m, "chat.typing", c.typing, ws.Doc("Says to the others in a room that this person is writing.")),
		ws.Handle(m, "chat.who", c.who, ws.Doc("Returns the names that are in a room.")),
	)
}

// authenticate takes the person's name and key from the query. The key is a secret that the page
// draws at random: connections with the same key belong to the same person, so that a page can
// repeat a request after a reconnect (WithIdempotency). Others read its hash only. In a service with
// accounts the user comes from the login, for example from a cookie.
func authenticate(r *http.Request) ([]ws.ClientOption, error) {
	query := r.URL.Query()
	key := query.Get("key")
	if len(key) < minKey {
		key = rand.Text() // a new person
	}
	sum := sha256.Sum256([]byte(key))
	return []ws.ClientOption{
		ws.WithUser(hex.EncodeToString(sum[:8])),
		ws.WithMetadata("name", strings.Clone(visible(query.Get("name")))),
	}, nil
}

// authorize lets a client with a name into a room, and gives each room a history. The page reads
// the errors here, because a browser does not show the answer to a refused handshake.
func (c *chat) authorize(client *ws.Client, room string) ([]ws.RoomOption, error) {
	switch {
	case !validLength(nameOf(client), maxName):
		return nil, c.invalid.New(fmt.Sprintf("Your name needs 1 to %d characters.", maxName))
	case !validLength(room, maxName):
		return nil, c.invalid.New(fmt.Sprintf("The name of the room needs 1 to %d characters.", maxName))
	case room != visible(room):
		return nil, c.invalid.New("The name of the room has invisible characters.")
	}
	return []ws.RoomOption{ws.WithHistory(ws.History{Size: c.options.history, TTL: 24 * time.Hour})}, nil
}

// send publishes a message to all members, the sender included, so that all read the same
// messages in the same order. The history keeps it for those who come later.
func (c *chat) send(client *ws.Client, req *Send) (*ws.Position, error) {
	text := strings.TrimSpace(req.Text)
	switch {
	case !slices.Contains(client.GetRooms(), req.Room):
		return nil, c.notInRoom.New("Join the room first.")
	case !validLength(text, maxText):
		return nil, c.invalid.New(fmt.Sprintf("A message needs 1 to %d characters.", maxText))
	case req.ID == "" || len(req.ID) > maxID:
		return nil, c.invalid.New(fmt.Sprintf("The ID of a message needs 1 to %d bytes.", maxID))
	}
	message := ChatMessage{ID: req.ID, User: client.User(), Name: nameOf(client), Text: text}
	position, err := c.messages.Publish(client.Context(), req.Room, message)
	return &position, err
}

// typing passes a notice on to the others. It is no part of the history. Of several notices of one
// person that wait for a slow client, the last one is kept, and after a while none.
func (c *chat) typing(client *ws.Client, req *InRoom) error {
	if !slices.Contains(client.GetRooms(), req.Room) {
		return c.notInRoom.New("Join the room first.")
	}
	notice := Typing{Room: req.Room, User: client.User(), Name: nameOf(client)}
	c.announce(req.Room, c.typed.Name(), notice,
		ws.Exclude(client), ws.ConflateKey("typing "+notice.User), ws.TTL(typedTTL))
	return nil
}

// who returns the names that are in the room. The page asks after each join, and when it has missed
// a change; see Presence.
func (c *chat) who(client *ws.Client, req *InRoom) (*Presence, error) {
	if !slices.Contains(client.GetRooms(), req.Room) {
		return nil, c.notInRoom.New("Join the room first.")
	}
	return c.presence.of(req.Room), nil
}

// announce sends a notification to the members of a room without keeping it in the history, as
// PublishEvent would.
func (c *chat) announce(room, event string, data any, opts ...ws.MessageOption) {
	notice, err := ws.NewNotifyMessageSimple(event, data)
	if err != nil {
		panic(err) // the types above always encode
	}
	encoded, err := json.Marshal(notice)
	if err != nil {
		panic(err)
	}
	_, err = c.m.Publish(room, encoded, opts...)
	if err != nil && !errors.Is(err, ws.ErrRoomNotFound) && !errors.Is(err, context.Canceled) {
		slog.Warn("announce", "room", room, "event", event, "err", err)
	}
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
