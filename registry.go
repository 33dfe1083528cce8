package ws

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// registryShards is the number of shards: a power of two, large enough that goroutines seldom
// meet at a lock.
const registryShards = 64

// registry finds clients by ID and by user. It publishes connects and disconnects in the
// order in which it adds and removes clients. Safe for concurrent use.
type registry struct {
	bus      *EventBus
	node     *node // nil without a Broker
	seed     maphash.Seed
	admitted atomic.Int64 // clients from admit on, for MaxConnections
	open     atomic.Int64 // clients with an open connection
	shards   [registryShards]registryShard
}

// registryShard is the part of the registry for some IDs and some users.
type registryShard struct {
	mu    sync.RWMutex
	byID  clientTable // guarded by mu
	users deviceTable // guarded by mu

	// unread holds the clients that have gone while their handlers run, and whose
	// disconnect is not published yet. Guarded by mu; nil until the first of them.
	unread map[string]goneClient
}

// goneClient is a client whose connection has ended.
type goneClient struct {
	client *Client
	closed *CloseError
}

func newRegistry(bus *EventBus, n *node) *registry {
	r := &registry{bus: bus, node: n, seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].byID.seed = maphash.MakeSeed()
		r.shards[i].users = newDeviceTable()
	}
	return r
}

func (r *registry) shard(id string) *registryShard {
	return &r.shards[maphash.String(r.seed, id)%registryShards]
}

func (r *registry) userShard(u user) *registryShard {
	if u.name != "" {
		return r.shard(u.name)
	}
	return &r.shards[uint64(u.id)%registryShards]
}

// admit counts c and takes its ID. It returns ErrClientIDExists with the client that
// has the ID, or ErrTooManyConnections. It never counts a refused client, not even for a
// moment, because others would be refused in that moment.
func (r *registry) admit(c *Client, limit int) (old *Client, err error) {
	s := r.shard(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID.get(c.ID); old != nil {
		return old, ErrClientIDExists
	}
	if !r.count(limit) {
		return nil, ErrTooManyConnections
	}
	s.byID.insert(c)
	return nil, nil
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

// opened publishes the connect of c, which was admitted, and makes it visible.
func (r *registry) opened(c *Client) {
	r.open.Add(1)
	s := r.shard(c.ID)
	s.mu.Lock()
	s.finishedLocked(r.bus, c.ID)
	r.bus.publish(EventClientConnected, c, nil)
	c.listed = true
	s.mu.Unlock()
	r.addDevice(c)
}

// addDevice makes c a device of its user.
func (r *registry) addDevice(c *Client) {
	u := c.user()
	if u == (user{}) {
		return
	}
	s := r.userShard(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users.add(u, c) == 1 {
		r.node.online(u)
	}
}

// abandon forgets c, which was admitted and never opened.
func (r *registry) abandon(c *Client) {
	s := r.shard(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID.remove(c)
	r.admitted.Add(-1)
}

// closed forgets c, whose connection has ended, and publishes its disconnect, unless closed is
// nil. While messages of c are unread, finished publishes the disconnect, or another client
// with its ID that connects.
func (r *registry) closed(c *Client, closed *CloseError, unread bool) {
	r.removeDevice(c)
	r.open.Add(-1)
	s := r.shard(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID.remove(c)
	r.admitted.Add(-1)
	switch {
	case closed == nil:
	case !unread:
		r.bus.publish(EventClientDisconnected, c, closed)
	default:
		if s.unread == nil {
			s.unread = make(map[string]goneClient)
		}
		s.unread[c.ID] = goneClient{c, closed}
	}
}

// finished publishes the disconnect of c, whose last message was handled, unless it is
// published already.
func (r *registry) finished(c *Client) {
	s := r.shard(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unread[c.ID].client == c {
		s.finishedLocked(r.bus, c.ID)
	}
}

// finishedLocked publishes the disconnect of a client of that ID that has gone, if there is
// one.
func (s *registryShard) finishedLocked(bus *EventBus, id string) {
	if gone, ok := s.unread[id]; ok {
		delete(s.unread, id)
		bus.publish(EventClientDisconnected, gone.client, gone.closed)
	}
}

func (r *registry) removeDevice(c *Client) {
	u := c.user()
	if u == (user{}) {
		return
	}
	s := r.userShard(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users.remove(u, c) {
		r.node.offline(u)
	}
}

// get returns the client of that ID if its connection was opened.
func (r *registry) get(id string) (*Client, bool) {
	s := r.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.byID.get(id)
	if c == nil || !c.listed {
		return nil, false
	}
	return c, true
}

// devices returns a copy of the user's clients.
func (r *registry) devices(u user) []*Client {
	s := r.userShard(u)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.users.of(u)
}

// eachStep is the number of clients that each looks at with a lock held.
const eachStep = 64

// each calls fn for every open client until it returns false. No lock is held
// meanwhile. It holds a lock for microseconds only, because event loops wait for it: it copies
// the pointers of a shard at once, and looks at the clients, which takes longer, in steps.
func (r *registry) each(fn func(*Client) bool) {
	var clients []*Client
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		clients = append(clients[:0], s.byID.slots...)
		s.mu.RUnlock()
		for step := range slices.Chunk(clients, eachStep) {
			for _, c := range s.open(step) {
				if !fn(c) {
					return
				}
			}
		}
	}
}

// open returns the open clients among some that may be nil, in the same array.
func (s *registryShard) open(clients []*Client) []*Client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.DeleteFunc(clients, func(c *Client) bool { return c == nil || !c.listed })
}

// DuplicateIDPolicy decides between two clients with one ID.
//
// Under each policy, an older client that is closing keeps its ID for half a second at most,
// whichever side began the close: then its connection ends, even in the middle of the close
// handshake. The new client waits for this end before it is answered. Its
// EventClientConnected comes after the EventClientDisconnected of the other client.
type DuplicateIDPolicy uint8

const (
	// RefuseNew refuses the new client with HTTP 409 and ErrClientIDExists.
	RefuseNew DuplicateIDPolicy = iota
	// ReplaceOld closes the older connection with code 4409 (CloseReplaced), and ends it
	// if it does not answer within half a second. Its messages that wait for a worker are
	// not handled.
	ReplaceOld
)

const (
	// replaceTimeout is the longest time that a closing connection keeps its ID while
	// another client waits for the ID.
	replaceTimeout = 500 * time.Millisecond
	// replacePoll is the interval at which the other client looks. Few clients wait, and
	// not for long.
	replacePoll = 5 * time.Millisecond
)

// register adds c to the registry. It may wait, until ctx ends, for the end of an older
// connection with the same ID. It never waits on an event loop, because an ID comes from
// code of the application, which runs elsewhere.
func (m *Manager) register(ctx context.Context, c *Client) error {
	for {
		old, err := m.clients.admit(c, m.cfg.MaxConnections)
		if old == nil {
			return err
		}
		if m.cfg.DuplicateID != ReplaceOld && !old.isLeaving() {
			return err
		}
		old.giveWay()
		select {
		case <-ctx.Done():
			return m.lateError(ctx.Err())
		case <-time.After(replacePoll):
		}
	}
}

// isLeaving reports whether the client is closing, by this side, or by its own close frame,
// which waits for its handlers.
func (c *Client) isLeaving() bool {
	return c.conn.Closed() || c.closesWhenRead()
}

// giveWay makes the connection end within replaceTimeout.
func (c *Client) giveWay() {
	switch {
	case c.conn.Closed():
	case c.closesWhenRead():
		c.conn.Resume() // its close frame is answered now
		return
	case c.conn.Open():
		c.mu.Lock()
		c.ending |= shut
		c.mu.Unlock()
	}
	c.conn.CloseWithin(CloseReplaced, "replaced by a new connection", replaceTimeout)
}
