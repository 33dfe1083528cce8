package ws

import "slices"

const (
	// maxScanned is the number of devices up to which a device is searched for in
	// its user's list; those of a longer list have their places in an index.
	maxScanned = 64
	// minIndexed is the length at which a list that becomes shorter loses its index.
	minIndexed = maxScanned / 2
)

// deviceTable holds the open clients of each user. Adding and removing one takes
// the same time however many devices its user has. Not safe for concurrent use.
type deviceTable struct {
	users  map[user][]*Client
	places map[*Client]int // in the lists that have an index
}

func newDeviceTable() deviceTable {
	return deviceTable{users: make(map[user][]*Client), places: make(map[*Client]int)}
}

// add makes c, which is not in the table, a device of u.
func (t *deviceTable) add(u user, c *Client) {
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
}

// indexed reports whether the places of a list are in the index.
func (t *deviceTable) indexed(devices []*Client) bool {
	_, ok := t.places[devices[0]]
	return ok
}

// remove takes c out of the devices of u, if it is there.
func (t *deviceTable) remove(u user, c *Client) {
	devices := t.users[u]
	if len(devices) == 0 {
		return
	}
	i, indexed := t.find(devices, c)
	if i < 0 {
		return
	}
	last := len(devices) - 1
	if indexed {
		t.places[devices[last]] = i
		delete(t.places, c)
	}
	devices[i] = devices[last]
	devices[last] = nil
	t.shorten(u, devices[:last], indexed)
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

// shorten stores the list of a user after a removal, and gives up the memory
// that it does not need any more.
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
