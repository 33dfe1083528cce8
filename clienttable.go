package ws

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// clientTable is a set of clients by ID: a hash table with linear probing that holds only
// pointers, because the IDs are in the clients. It grows by a quarter, so it takes about 12
// bytes for each client and at most 17, not 11 to 21; a map with string keys takes 40.
// Not safe for concurrent use.
type clientTable struct {
	seed  maphash.Seed
	slots []*Client // at most three quarters full
	size  int
}

// minTable is the smallest size of a table.
const minTable = 8

// home returns the slot at which the search for id begins.
func (t *clientTable) home(id string) int {
	slot, _ := bits.Mul64(maphash.String(t.seed, id), uint64(len(t.slots)))
	return int(slot)
}

// next returns the slot behind slot i.
func (t *clientTable) next(i int) int {
	if i++; i < len(t.slots) {
		return i
	}
	return 0
}

// distance returns the number of steps from one slot to another.
func (t *clientTable) distance(from, to int) int {
	if to < from {
		to += len(t.slots)
	}
	return to - from
}

// find returns the slot of id, or the free slot for it.
func (t *clientTable) find(id string) int {
	i := t.home(id)
	for t.slots[i] != nil && t.slots[i].ID != id {
		i = t.next(i)
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
		t.resize(max(minTable, len(t.slots)+len(t.slots)/4))
	}
	i := t.find(c.ID)
	if t.slots[i] != nil {
		return false
	}
	t.slots[i] = c
	t.size++
	return true
}

// remove removes c, and moves the clients that a search would not find behind the gap.
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
	for i := t.next(gap); t.slots[i] != nil; i = t.next(i) {
		// The entry may fill the gap unless its home lies behind the gap.
		if home := t.home(t.slots[i].ID); t.distance(home, i) >= t.distance(gap, i) {
			t.slots[gap], t.slots[i] = t.slots[i], nil
			gap = i
		}
	}
	if len(t.slots) > minTable && 8*t.size < len(t.slots) {
		t.resize(max(minTable, len(t.slots)/2))
	}
}

// resize moves all clients to n slots, or the few more that fit into the allocator's block.
func (t *clientTable) resize(n int) {
	old := t.slots
	t.slots = slices.Grow([]*Client(nil), n)
	t.slots = t.slots[:cap(t.slots)]
	for _, c := range old {
		if c != nil {
			t.slots[t.find(c.ID)] = c
		}
	}
}
