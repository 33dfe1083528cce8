package ws

import "strconv"

// user identifies a user. The zero value is no user.
type user struct {
	id   int64
	name string // "" for a user whose name is the decimal text of id
}

// userNamed returns the user of that name, which is one with an id if the name is the text
// of an integer as WithUserID would write it.
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
	if c.extra == nil {
		return user{}
	}
	return user{name: c.extra.user}
}

// UserClients returns the connected clients of a user, the user's devices: none if the user is
// not online. name is the name given to WithUser, or the decimal text of the ID given to WithUserID.
func (m *Manager) UserClients(name string) []*Client { return m.clients.devices(userNamed(name)) }
