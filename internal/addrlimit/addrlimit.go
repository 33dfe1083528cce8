// Package addrlimit bounds the connections of each address: their rate, and their number at
// once. It keeps the addresses in a table of fixed size.
package addrlimit

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Key names the addresses that share the limits: one IPv4 address, mapped into IPv6 or not, or
// one IPv6 network of 64 bits. The zero value is none.
type Key uint64

const (
	// ipv4Keys begins the keys of IPv4 addresses, in the reserved network 0:1::/32.
	ipv4Keys Key = 1 << 32
	// lowestKey is the key of the network ::/64, which holds the loopback address.
	lowestKey Key = 1
)

// KeyOf returns the key of an address, or none for the zero Addr.
func KeyOf(addr netip.Addr) Key {
	switch addr = addr.Unmap(); {
	case addr.Is4():
		ip := addr.As4()
		return ipv4Keys | Key(binary.BigEndian.Uint32(ip[:]))
	case addr.Is6():
		ip := addr.As16()
		return max(lowestKey, Key(binary.BigEndian.Uint64(ip[:8])))
	}
	return 0
}

// Limits are the bounds for each address. Immutable.
type Limits struct {
	PerSecond   float64 // connections a second; 0 is no limit
	Burst       int     // connections that may come at once after a quiet time, at least 1
	Connections int     // open connections; 0 is no limit
	Places      int     // addresses with open connections for which the table has room
}

// Verdict is the decision about one more connection of an address.
type Verdict uint8

// The verdicts.
const (
	Counted   Verdict = iota // it comes in, and Leave must follow
	Uncounted                // it comes in, and Leave must not follow: there was no place for its address
	TooFast                  // it is refused because of Limits.PerSecond
	TooMany                  // it is refused because of Limits.Connections
)

const (
	numShards = 64
	ways      = 8 // places of a set
	// spare is the number of places for each address of Limits.Places. With two of them, and
	// with minPlaces, practically no address finds both of its sets full.
	spare     = 2
	minPlaces = 4096
)

// Table holds the state of addresses, 20 bytes for each, in sets of eight places. An address
// belongs to two of the sets, and takes a place in the set with fewer open connections.
//
// An address with open connections keeps its place until the last of them leaves. So its count
// is exact, however many addresses come. Another address loses its place to a new one if it is
// the one of its set that would have its whole burst again first; then it has the burst at once.
// If both sets are full of addresses with open connections, the table lets a new address in and
// does not count it.
//
// The hash that chooses the sets has a random seed, so nobody can choose addresses that meet in
// one set. Safe for concurrent use.
type Table struct {
	// Immutable after New.
	interval    time.Duration // between two connections at the rate; 0 is no limit
	tolerance   time.Duration // by which connections may come before their interval
	connections int32         // 0 is no limit
	seed        maphash.Seed
	mask        uint64 // of the number of sets in a shard

	uncounted atomic.Uint64
	shards    [numShards]shard
}

// shard is the part of the table for some addresses.
type shard struct {
	mu   sync.Mutex
	sets []set // guarded by mu

	addresses atomic.Int64 // with open connections; written with mu held
	_         [24]byte     // a cache line for each shard
}

// set holds the state of up to ways addresses, by place. The rate is kept as the time at which
// the address has its whole burst again (GCRA, the token bucket in one number).
type set struct {
	keys  [ways]Key // 0 is a free place
	whole [ways]time.Duration
	open  [ways]int32 // connections
}

// longest bounds the time of a whole burst in nanoseconds, so that times do not overflow.
const longest = 1 << 60

// New returns an empty table, or nil if there is no limit.
func New(l Limits) *Table {
	if l.PerSecond == 0 && l.Connections == 0 {
		return nil
	}
	t := &Table{connections: int32(l.Connections), seed: maphash.MakeSeed()}
	if l.PerSecond > 0 {
		t.interval = time.Duration(min(float64(time.Second)/l.PerSecond, longest/float64(l.Burst)))
		t.tolerance = t.interval * time.Duration(l.Burst-1)
	}
	sets := uint64(max(minPlaces, l.Places) * spare / (numShards * ways))
	sets = 1 << bits.Len64(sets-1) // rounded up to a power of two
	t.mask = sets - 1
	for i := range t.shards {
		t.shards[i].sets = make([]set, sets)
	}
	return t
}

// Admit decides about one more connection of k at the time now, on any clock that does not go
// back. A refused connection changes nothing. Admit allocates nothing.
func (t *Table) Admit(k Key, now time.Duration) Verdict {
	s, a, b := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(k, a, b)
	if p.set == nil {
		if p = s.take(k, a, b); p.set == nil {
			t.uncounted.Add(1)
			return Uncounted
		}
	}
	switch {
	case t.connections > 0 && *p.open() >= t.connections:
		return TooMany
	case t.interval > 0 && *p.whole() > now+t.tolerance:
		return TooFast
	}
	if t.interval > 0 {
		*p.whole() = max(*p.whole(), now) + t.interval
	}
	if *p.open()++; *p.open() == 1 {
		s.addresses.Add(1)
	}
	return Counted
}

// Leave ends one connection of k that Admit has counted. It returns false if there is none.
func (t *Table) Leave(k Key) bool {
	s, a, b := t.locate(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(k, a, b)
	if p.set == nil || *p.open() == 0 {
		return false
	}
	if *p.open()--; *p.open() == 0 {
		s.addresses.Add(-1)
	}
	return true
}

// Addresses returns the number of addresses with open connections.
func (t *Table) Addresses() (n int) {
	for i := range t.shards {
		n += int(t.shards[i].addresses.Load())
	}
	return n
}

// Uncounted returns the number of connections that came in uncounted.
func (t *Table) Uncounted() uint64 { return t.uncounted.Load() }

// locate returns the shard of k, and its two sets.
func (t *Table) locate(k Key) (s *shard, a, b uint64) {
	h := maphash.Comparable(t.seed, k)
	return &t.shards[h%numShards], h >> 6 & t.mask, h >> 35 & t.mask
}

// place is one place of a set; the zero value is none.
type place struct {
	set *set
	i   int
}

func (p place) open() *int32          { return &p.set.open[p.i] }
func (p place) whole() *time.Duration { return &p.set.whole[p.i] }

// find returns the place of k in one of two sets.
func (s *shard) find(k Key, a, b uint64) place {
	for _, n := range [2]uint64{a, b} {
		set := &s.sets[n]
		for i := range set.keys {
			if set.keys[i] == k {
				return place{set, i}
			}
		}
	}
	return place{}
}

// take gives a place in one of two sets to k.
func (s *shard) take(k Key, a, b uint64) place {
	p, taken := s.sets[a].candidate()
	if q, others := s.sets[b].candidate(); others < taken {
		p = q
	}
	if p.set != nil {
		p.set.keys[p.i] = k
		*p.whole() = 0
	}
	return p
}

// candidate returns the place for a new address. It has no open connections, and its burst is
// whole before the burst of any other such place; a free place comes first. taken is the number
// of places with open connections.
func (s *set) candidate() (p place, taken int) {
	for i := range s.keys {
		switch {
		case s.open[i] > 0:
			taken++
		case p.set == nil || s.whole[i] < s.whole[p.i]:
			p = place{s, i}
		}
	}
	return p, taken
}
