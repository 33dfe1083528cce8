// Package presence keeps the users of a room: those of this node, who may be held for a while after
// their last client has gone, and those of the other nodes of a cluster. It has the format of the
// messages between nodes.
package presence

import (
	"container/list"
	"iter"
	"time"
)

// View is the set of users in a room, as one node knows them. A user is a key. It is here while it has a
// client here or is held here, and present while it is here or in the part of another node. Times
// are on any clock that only grows. Not safe for concurrent use.
type View struct {
	users   map[string]*user // those that are present, and those with a change that somebody lacks
	present int              // users that are present
	here    int              // users that are here
	clients int              // clients here
	away    int              // clients in the parts
	held    list.List        // of *user, the first end first
	untold  map[*user]struct{}
	outbox                   // to the other nodes
	parts   map[string]*part // of the other nodes, by the ID of the node
}

// user is a user of a View.
type user struct {
	key     string
	clients int           // here
	held    *list.Element // in View.held; nil while it is not held
	until   time.Duration // end of the hold
	parts   int           // that have the user
	told    bool          // it was present at the last Take
	sent    bool          // the other nodes were sent that it is here
}

func (u *user) isHere() bool { return u.clients > 0 || u.held != nil }

func (u *user) isPresent() bool { return u.isHere() || u.parts > 0 }

// NewView returns a View without users. It is shared if there are other nodes.
func NewView(shared bool) *View {
	v := &View{users: make(map[string]*user), untold: make(map[*user]struct{})}
	if shared {
		v.unsent, v.parts = make(map[*user]struct{}), make(map[string]*part)
	}
	return v
}

// Join adds a client here.
func (v *View) Join(key string) {
	v.change(key, func(u *user) {
		v.clients++
		u.clients++
		v.release(u)
	})
}

// Leave removes a client that Join has added. If it was the user's last one, the user is held until
// that time, or not at all if until is 0. The times must not decrease from call to call.
func (v *View) Leave(key string, until time.Duration) {
	v.change(key, func(u *user) {
		v.clients--
		u.clients--
		if u.clients == 0 && until > 0 {
			u.until = until
			u.held = v.held.PushBack(u)
		}
	})
}

// Expire ends the holds whose time has come.
func (v *View) Expire(now time.Duration) {
	for first := v.held.Front(); first != nil && first.Value.(*user).until <= now; first = v.held.Front() {
		v.change(first.Value.(*user).key, v.release)
	}
}

// EndHolds ends all holds.
func (v *View) EndHolds() {
	for first := v.held.Front(); first != nil; first = v.held.Front() {
		v.change(first.Value.(*user).key, v.release)
	}
}

func (v *View) release(u *user) {
	if u.held != nil {
		v.held.Remove(u.held)
		u.held = nil
	}
}

// NextHold returns the time at which the first hold ends.
func (v *View) NextHold() (at time.Duration, ok bool) {
	if first := v.held.Front(); first != nil {
		return first.Value.(*user).until, true
	}
	return 0, false
}

// change applies fn to a user, and notes the difference that it makes.
func (v *View) change(key string, fn func(*user)) {
	u := v.users[key]
	if u == nil {
		u = &user{key: key}
		v.users[key] = u
	}
	present, here := u.isPresent(), u.isHere()
	fn(u)
	v.present += difference(present, u.isPresent())
	v.here += difference(here, u.isHere())
	v.settle(u)
}

// difference returns the difference of a count.
func difference(before, after bool) int {
	switch {
	case before == after:
		return 0
	case after:
		return 1
	}
	return -1
}

// settle notes whether somebody lacks a change of u, and forgets a user that has gone.
func (v *View) settle(u *user) {
	lacks(v.untold, u, u.told != u.isPresent())
	if v.unsent != nil {
		lacks(v.unsent, u, u.sent != u.isHere())
	}
	if !u.isPresent() && !u.told && !u.sent {
		delete(v.users, u.key)
	}
}

func lacks(set map[*user]struct{}, u *user, lacks bool) {
	if lacks {
		set[u] = struct{}{}
	} else {
		delete(set, u)
	}
}

// Users returns the number of users that are present.
func (v *View) Users() int { return v.present }

// Clients returns the number of their clients.
func (v *View) Clients() int { return v.clients + v.away }

// Here returns the number of users that are here.
func (v *View) Here() int { return v.here }

// Changed reports whether Take returns something.
func (v *View) Changed() bool { return len(v.untold) > 0 }

// Take returns the users that have come and gone since the last call, in no order.
func (v *View) Take() (joins, leaves []string) {
	for u := range v.untold {
		u.told = u.isPresent()
		if u.told {
			joins = append(joins, u.key)
		} else {
			leaves = append(leaves, u.key)
		}
		v.settle(u)
	}
	return joins, leaves
}

// All yields the users that are present, in no order.
func (v *View) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for key, u := range v.users {
			if u.isPresent() && !yield(key) {
				return
			}
		}
	}
}
