package ws

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// registryShards is a power of two, large enough that accepting and looking up
// seldom meet at a lock.
const registryShards = 64

// registry finds clients by ID and by user. Safe for concurrent use.
type registry struct {
	seed     maphash.Seed
	admitted atomic.Int64 // clients from Admit on, for MaxConnections
	open     atomic.Int64 // clients whose connection is open
	shards   [registryShards]registryShard
}

// registryShard is the part of the registry for some IDs and some users.
type registryShard struct {
	mu    sync.RWMutex
	byID  clientTable // guarded by mu
	users deviceTable // guarded by mu
}

func newRegistry() *registry {
	r := &registry{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].byID.seed = maphash.MakeSeed()
		r.shards[i].users = newDeviceTable()
	}
	return r
}

func (r *registry) shard(id string) *registryShard {
	return &r.shards[maphash.String(r.seed, id)%registryShards]
}

func (r *registry) userShard(userID int64) *registryShard {
	return &r.shards[uint64(userID)%registryShards]
}

// admit counts c and takes its ID. It returns ErrTooManyConnections or
// ErrClientIDExists. A client that is refused is not counted even for a moment, in
// which others would be refused on its account.
func (r *registry) admit(c *Client, limit int) error {
	s := r.shard(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.admitted.Load() >= int64(limit) {
		return ErrTooManyConnections
	}
	if s.byID.get(c.ID) != nil {
		return ErrClientIDExists
	}
	if !r.count(limit) {
		return ErrTooManyConnections
	}
	s.byID.insert(c)
	return nil
}

// count counts one more client, if the limit allows it.
func (r *registry) count(limit int) bool {
	for {
		n := r.admitted.Load()
		if n >= int64(limit) {
			return false
		}
		if r.admitted.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// opened makes c, which was admitted, a device of its user.
func (r *registry) opened(c *Client) {
	r.open.Add(1)
	if c.UserID == 0 {
		return
	}
	s := r.userShard(c.UserID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users.add(c)
}

// remove forgets c, which was admitted; wasOpen tells whether opened was
// called.
func (r *registry) remove(c *Client, wasOpen bool) {
	s := r.shard(c.ID)
	s.mu.Lock()
	s.byID.remove(c)
	s.mu.Unlock()
	r.admitted.Add(-1)
	if wasOpen {
		r.open.Add(-1)
		r.removeDevice(c)
	}
}

func (r *registry) removeDevice(c *Client) {
	if c.UserID == 0 {
		return
	}
	s := r.userShard(c.UserID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users.remove(c)
}

// get returns the client of that ID if its connection was opened.
func (r *registry) get(id string) (*Client, bool) {
	s := r.shard(id)
	s.mu.RLock()
	c := s.byID.get(id)
	s.mu.RUnlock()
	if c == nil || !c.conn.Opened() {
		return nil, false
	}
	return c, true
}

// devices returns a copy of the user's clients.
func (r *registry) devices(userID int64) []*Client {
	s := r.userShard(userID)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.users.of(userID)
}

// each calls fn for every open client until it returns false. No lock is held
// meanwhile.
func (r *registry) each(fn func(*Client) bool) {
	var clients []*Client
	for i := range r.shards {
		s := &r.shards[i]
		clients = clients[:0]
		s.mu.RLock()
		for _, c := range s.byID.slots {
			if c != nil {
				clients = append(clients, c)
			}
		}
		s.mu.RUnlock()
		for _, c := range clients {
			if c.conn.Opened() && !fn(c) {
				return
			}
		}
	}
}
