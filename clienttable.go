package ws

import "hash/maphash"

// clientTable is a set of clients by ID: a hash table with linear probing that
// holds nothing but pointers, since the IDs are in the clients. It takes about
// 13 bytes for each client, where a map with string keys takes 40.
// Not safe for concurrent use.
type clientTable struct {
	seed  maphash.Seed
	slots []*Client // a power of two, at most three quarters full
	size  int
}

// minTable is the first size of a table, and its smallest.
const minTable = 8

// home returns the slot where the search for id begins.
func (t *clientTable) home(id string) int {
	return int(maphash.String(t.seed, id) & uint64(len(t.slots)-1))
}

// find returns the slot of id, or the free slot where it belongs.
func (t *clientTable) find(id string) int {
	i := t.home(id)
	for t.slots[i] != nil && t.slots[i].ID != id {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return i
}

func (t *clientTable) get(id string) *Client {
	if t.size == 0 {
		return nil
	}
	return t.slots[t.find(id)]
}

// insert adds c and reports whether its ID was free.
func (t *clientTable) insert(c *Client) bool {
	if 4*(t.size+1) > 3*len(t.slots) {
		t.resize(max(minTable, 2*len(t.slots)))
	}
	i := t.find(c.ID)
	if t.slots[i] != nil {
		return false
	}
	t.slots[i] = c
	t.size++
	return true
}

// remove takes c out, and moves up the clients that a search would no longer find past the
// gap.
func (t *clientTable) remove(c *Client) {
	if t.size == 0 {
		return
	}
	gap := t.find(c.ID)
	if t.slots[gap] != c {
		return
	}
	t.slots[gap] = nil
	t.size--
	mask := len(t.slots) - 1
	for i := (gap + 1) & mask; t.slots[i] != nil; i = (i + 1) & mask {
		// The entry may fill the gap unless its home lies behind the gap.
		if home := t.home(t.slots[i].ID); (i-home)&mask >= (i-gap)&mask {
			t.slots[gap], t.slots[i] = t.slots[i], nil
			gap = i
		}
	}
	if len(t.slots) > minTable && 8*t.size < len(t.slots) {
		t.resize(len(t.slots) / 2)
	}
}

// resize moves all clients to n slots.
func (t *clientTable) resize(n int) {
	old := t.slots
	t.slots = make([]*Client, n)
	for _, c := range old {
		if c != nil {
			t.slots[t.find(c.ID)] = c
		}
	}
}
