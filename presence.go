package ws

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/qi-realtime/ws/internal/presence"
)

// Presence configures the presence of a room; see WithPresence. A zero field has its default.
type Presence struct {
	// List sends the members the list of the users and its changes. Without it they get the numbers.
	List bool
	// LeaveHold is the time for which a user whose last connection has ended stays present: a user
	// who comes back within it has never left. LeaveRoom ends the presence at once. Default 10 s; a
	// negative one is none.
	LeaveHold time.Duration
	// Interval is the least time between two notifications to the members. Default 250 ms with List,
	// and 1 s without.
	Interval time.Duration
	// MaxList is the greatest number of users on the list. While there are more, the members get
	// the numbers, at most once a second. Default 1,000, and at most 100,000.
	MaxList int
}

// maxMaxList bounds Presence.MaxList: a list of that length has some megabytes, for each member.
const maxMaxList = 100_000

func (p *Presence) validate() error {
	if p == nil {
		return nil
	}
	return firstError(
		invalidIf(p.MaxList < 0 || p.MaxList > maxMaxList, "Presence.MaxList", "must be between 0 and 100000"),
		atLeast("Presence.Interval", p.Interval, 0),
	)
}

func (p Presence) withDefaults() Presence {
	interval := countInterval
	if p.List {
		interval = 250 * time.Millisecond
	}
	p.Interval = cmp.Or(p.Interval, interval)
	p.LeaveHold = max(0, cmp.Or(p.LeaveHold, 10*time.Second))
	p.MaxList = cmp.Or(p.MaxList, 1000)
	return p
}

// WithPresence makes the room report who is present: to its members by the notification ws.presence,
// and to the application by Manager.RoomPresence. A user with several connections is present once
// (WithUserID, WithUser); a client without a user counts as a user of its own. A client that comes back with
// its list, see PresenceVersion, gets the changes alone. docs/presence.md describes the notifications and
// their cost.
func WithPresence(p Presence) RoomOption {
	return func(o *roomOptions) { o.presence = &p }
}

// PresentUser is a user of a room. Immutable.
type PresentUser struct {
	// User is the name given to WithUser, or the decimal text of the ID given to WithUserID; "" for a
	// client without a user.
	User string `json:"user,omitempty"`
	// Client is the ID of a client without a user.
	Client string `json:"client,omitempty"`
}

// PresenceVersion names the list of the users of a room that a client has, with the epoch and the version
// of the notifications ws.presence. Each node begins an epoch of its own when the room gets its first
// user there. The zero value is no list. Immutable.
type PresenceVersion struct {
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`
}

// check returns the error of a client that names a list in part.
func (v *PresenceVersion) check() error {
	switch {
	case v == nil:
	case v.Epoch == "":
		return NewClientError(400, "invalid data: presence.epoch is missing")
	case v.Version == 0:
		return NewClientError(400, "invalid data: presence.version is missing")
	}
	return nil
}

// orZero returns the zero value for nil.
func (v *PresenceVersion) orZero() PresenceVersion {
	if v == nil {
		return PresenceVersion{}
	}
	return *v
}

// RoomPresence is the presence of a room. Immutable.
type RoomPresence struct {
	Users     int           // users that are present, with those that are held; see Presence.LeaveHold
	Clients   int           // their connections
	Members   []PresentUser // the users, sorted; up to Presence.MaxList of them
	Truncated bool          // Members lacks some
}

// RoomPresence returns the users that are present in a room WithPresence, as this node knows it: with
// a Broker a node without members knows only its own users that are held. It returns ErrRoomNotFound,
// and ErrNoPresence for another room. Safe for concurrent use.
func (m *Manager) RoomPresence(roomID string) (RoomPresence, error) {
	if p := m.presences.get(roomID); p != nil {
		return p.describe(), nil
	}
	r, ok := m.rooms.Get(roomID)
	switch {
	case !ok:
		return RoomPresence{}, ErrRoomNotFound
	case r.Data().presence == nil:
		return RoomPresence{}, ErrNoPresence
	}
	return RoomPresence{}, nil
}

// watch is the presence of a Room: nil without. The roomPresence outlives the Room, because users are held,
// and has the users of each later Room of the same ID.
type watch struct {
	all *presences // immutable
	cfg Presence   // immutable

	// Guarded by Room.mu.
	room *roomPresence // nil before the first member
}

func (m *Manager) newWatch(p *Presence) *watch {
	if p == nil {
		return nil
	}
	return &watch{all: &m.presences, cfg: p.withDefaults()}
}

// joined notes a new member. It is called with Client.mu and Room.mu held.
func (w *watch) joined(r *roomEntry, c *Client) {
	if w == nil {
		return
	}
	for w.room == nil || !w.room.join(c, w.cfg) {
		w.room = w.all.begin(r.ID())
	}
}

// left is the reverse of joined. It is called with Room.mu held, and possibly with Client.mu.
func (w *watch) left(c *Client) {
	if w != nil {
		w.room.leave(c)
	}
}

// deleted ends the holds of a room that was deleted.
func (w *watch) deleted(id string) {
	if w == nil {
		return
	}
	if p := w.all.get(id); p != nil {
		p.endHolds()
	}
}

// roomPresence is the presence of the rooms of one ID. Safe for concurrent use.
type roomPresence struct {
	// Immutable.
	all   *presences
	id    string
	epoch string // of the versions

	diffs presence.Diffs[*Prepared] // notifications to all; for the goroutine of presences alone

	// Guarded by presences.mu.
	at    time.Duration // of the next run
	place int           // in presences.due; -1 without a next run

	mu sync.Mutex
	// Guarded by mu.
	cfg     Presence // of the newest Room
	view    *presence.View
	clients map[*Client]string          // the members, with their users
	news    map[*Client]PresenceVersion // members to bring up to date, with the lists that they have
	told    presenceNumbers             // the numbers that the members know of
	version uint64                      // grows with each change that the members were told
	ranAt   time.Duration               // time of the last notification to all
	share   sharing
	reset   bool // all members need the list or the numbers
	over    bool // MaxList is exceeded
	ended   bool // it is not in presences any more
}

const (
	keyUser   = "u" // first byte of a user's key
	keyClient = "c" // first byte of the key of a client without a user
)

// presenceKeyLocked returns the key of the client's user.
func (c *Client) presenceKeyLocked() string {
	key := keyClient + c.ID
	if u := c.userLocked(); u != (user{}) {
		key = keyUser + u.String()
	}
	return key[:min(len(key), presence.MaxKey)]
}

// presentUser is the reverse of presenceKeyLocked.
func presentUser(key string) PresentUser {
	if key[:1] == keyUser {
		return PresentUser{User: key[1:]}
	}
	return PresentUser{Client: key[1:]}
}

// join adds a member, and reports whether p has not ended. Client.mu is held.
func (p *roomPresence) join(c *Client, cfg Presence) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	if p.cfg != cfg { // of a Room that has ended
		p.cfg, p.reset = cfg, len(p.clients) > 0
	}
	key := c.presenceKeyLocked()
	p.clients[c] = key
	p.view.Join(key)
	p.news[c] = PresenceVersion{}
	if p.all.node != nil && len(p.clients) == 1 {
		p.share.needParts(p.all.now())
	}
	p.scheduleLocked()
	return true
}

// leave removes a member. A client that has no user and no ID of the application's is not held,
// because nobody can come back as that client.
func (p *roomPresence) leave(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key, ok := p.clients[c]
	if !ok {
		return
	}
	delete(p.clients, c)
	delete(p.news, c)
	var until time.Duration
	if p.cfg.LeaveHold > 0 && c.conn.Closed() && (key[:1] == keyUser || c.traits&named != 0) {
		until = p.all.now() + p.cfg.LeaveHold
	}
	p.view.Leave(key, until)
	if p.all.node != nil && len(p.clients) == 0 {
		p.dropPartsLocked()
	}
	p.scheduleLocked()
}

func (p *roomPresence) endHolds() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.view.EndHolds()
	p.scheduleLocked()
}

// show brings a member up to date that has that list: it gets the changes since then, or else the list
// or the numbers. It returns false for another client.
func (p *roomPresence) show(c *Client, has PresenceVersion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.clients[c]; !ok {
		return false
	}
	p.news[c] = has
	p.scheduleLocked()
	return true
}

func (p *roomPresence) describe() RoomPresence {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := RoomPresence{Users: p.view.Users(), Clients: p.view.Clients()}
	d.Truncated = d.Users > p.cfg.MaxList
	d.Members = presentUsers(p.usersLocked(p.cfg.MaxList))
	return d
}

// usersLocked returns the keys of up to most users, in no order.
func (p *roomPresence) usersLocked(most int) []string {
	keys := make([]string, 0, min(most, p.view.Users()))
	for key := range p.view.All() {
		if len(keys) == most {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

// presentUsers sorts the keys, and returns their users.
func presentUsers(keys []string) []PresentUser {
	slices.Sort(keys)
	users := make([]PresentUser, len(keys))
	for i, key := range keys {
		users[i] = presentUser(key)
	}
	return users
}
