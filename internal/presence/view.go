// Package presence keeps the users of a room. A user whose last client has gone may be held for a
// while.
package presence

import (
	"container/list"
	"iter"
	"time"
)

// View is the set of users in a room. A user is a key; it is present while it has a client, or is
// held. Times are on any clock that only grows. Not safe for concurrent use.
type View struct {
	users   map[string]*user   // the present ones, and those with an end that is not taken yet
	present int                // users that are present
	clients int                // of the users
	held    list.List          // of *user, the first end first
	untold  map[*user]struct{} // users with a change that is not taken yet
}

// user is a user of a View.
type user struct {
	key     string
	clients int
	held    *list.Element // in View.held; nil while it is not held
	until   time.Duration // end of the hold
	told    bool          // it was present at the last Take
}

func (u *user) isPresent() bool { return u.clients > 0 || u.held != nil }

// NewView returns a View without users.
func NewView() *View {
	return &View{users: make(map[string]*user), untold: make(map[*user]struct{})}
}

// Join adds a client of a user.
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
	present := u.isPresent()
	fn(u)
	v.present += difference(present, u.isPresent())
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

// settle notes whether u has a change that is not taken yet, and forgets a user that has gone.
func (v *View) settle(u *user) {
	if u.told != u.isPresent() {
		v.untold[u] = struct{}{}
		return
	}
	delete(v.untold, u)
	if !u.isPresent() {
		delete(v.users, u.key)
	}
}

// Users returns the number of users that are present.
func (v *View) Users() int { return v.present }

// Clients returns the number of their clients.
func (v *View) Clients() int { return v.clients }

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
