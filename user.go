package ws

import (
	"slices"
	"strconv"
)

// user identifies a user. The zero value is no user.
type user struct {
	id   int64
	name string // "" for a user whose name is the decimal text of id
}

// userNamed returns the user of that name: by its id if the name is the decimal text of an
// integer other than 0.
func userNamed(name string) user {
	id, err := strconv.ParseInt(name, 10, 64)
	if err == nil && id != 0 && strconv.FormatInt(id, 10) == name {
		return user{id: id}
	}
	return user{name: name}
}

// String returns the user's name, "" for no user.
func (u user) String() string {
	if u.id != 0 {
		return strconv.FormatInt(u.id, 10)
	}
	return u.name
}

// WithUserID names the user whose device the client is; see Manager.BroadcastToUser.
// It is the same user as WithUser with the decimal text of id. 0 is no user.
func WithUserID(id int64) ClientOption { return func(o *clientOptions) { o.user = user{id: id} } }

// WithUser is WithUserID for users whose ID need not be an integer; see
// Manager.PublishToUser. "" is no user. A name that is no integer costs some 200 bytes for each
// client.
func WithUser(name string) ClientOption { return func(o *clientOptions) { o.user = userNamed(name) } }

// User returns the name given to WithUser, the decimal text of the ID given to WithUserID, or "".
func (c *Client) User() string { return c.user().String() }

func (c *Client) user() user {
	if c.UserID != 0 {
		return user{id: c.UserID}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.userLocked()
}

func (c *Client) userLocked() user {
	if c.UserID != 0 || c.lazy == nil {
		return user{id: c.UserID}
	}
	return user{name: c.lazy.user}
}

// UserClients returns the connected clients of a user, the user's devices: none if the user is
// not online. name is the name given to WithUser, or the decimal text of the ID given to WithUserID.
func (m *Manager) UserClients(name string) []*Client { return m.clients.devices(userNamed(name)) }

const (
	// maxScanned is the number of devices up to which a search scans the user's list; a
	// longer list has an index of places.
	maxScanned = 64
	// minIndexed is the length at which a list that becomes shorter loses its index.
	minIndexed = maxScanned / 2
)

// deviceTable holds the open clients of each user. The time to add or remove a client does not
// grow with the number of its user's devices. Not safe for concurrent use.
type deviceTable struct {
	users  map[user][]*Client
	places map[*Client]int // in the lists with an index
}

func newDeviceTable() deviceTable {
	return deviceTable{users: make(map[user][]*Client), places: make(map[*Client]int)}
}

// add makes c, which is not in the table, a device of u, and returns the number of its devices.
func (t *deviceTable) add(u user, c *Client) int {
	devices := append(t.users[u], c)
	t.users[u] = devices
	switch n := len(devices); {
	case n <= minIndexed:
	case t.indexed(devices):
		t.places[c] = n - 1
	case n > maxScanned:
		for i, d := range devices {
			t.places[d] = i
		}
	}
	return len(devices)
}

// indexed reports whether the places of a list are in the index.
func (t *deviceTable) indexed(devices []*Client) bool {
	_, ok := t.places[devices[0]]
	return ok
}

// remove removes c from the devices of u, if it is there, and reports whether it was the last.
func (t *deviceTable) remove(u user, c *Client) (last bool) {
	devices := t.users[u]
	if len(devices) == 0 {
		return false
	}
	i, indexed := t.find(devices, c)
	if i < 0 {
		return false
	}
	n := len(devices) - 1
	if indexed {
		t.places[devices[n]] = i
		delete(t.places, c)
	}
	devices[i] = devices[n]
	devices[n] = nil
	t.shorten(u, devices[:n], indexed)
	return n == 0
}

// find returns the place of c in its user's list, -1 if it is not there.
func (t *deviceTable) find(devices []*Client, c *Client) (i int, indexed bool) {
	if len(devices) > maxScanned || t.indexed(devices) {
		i, ok := t.places[c]
		if !ok {
			i = -1
		}
		return i, true
	}
	return slices.Index(devices, c), false
}

// shorten stores the list of a user after a removal, and releases memory that it does not need
// any more.
func (t *deviceTable) shorten(u user, devices []*Client, indexed bool) {
	if len(devices) == 0 {
		delete(t.users, u)
		return
	}
	if indexed && len(devices) <= minIndexed {
		for _, d := range devices {
			delete(t.places, d)
		}
		if len(t.places) == 0 {
			t.places = make(map[*Client]int) // a map does not shrink
		}
	}
	if cap(devices) > maxScanned && len(devices) <= cap(devices)/4 {
		devices = append(make([]*Client, 0, 2*len(devices)), devices...)
	}
	t.users[u] = devices
}

// of returns a copy of the user's devices.
func (t *deviceTable) of(u user) []*Client { return slices.Clone(t.users[u]) }
