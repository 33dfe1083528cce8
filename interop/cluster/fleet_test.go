package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
)

// fleet is many clients of package client, in rooms that have members at all nodes. Safe for
// concurrent use.
type fleet struct {
	addresses []string // to which the clients connect
	members   []*member
	history   bool // of the rooms
	orders    orders
}

// orders has the message at each position of the histories, which is the same for all clients. Safe
// for concurrent use.
type orders struct {
	mu       sync.Mutex
	messages map[string]string // guarded by mu
}

// note checks the place of a message.
func (o *orders) note(t *testing.T, n client.Notify, m message) {
	if n.Position.Offset == 0 {
		return
	}
	at, name := fmt.Sprint(n.Room, n.Position), fmt.Sprint(m.Publisher, " ", m.N)
	o.mu.Lock()
	defer o.mu.Unlock()
	if other, known := o.messages[at]; known && other != name {
		t.Errorf("%s: %s for one client, %s for another", at, name, other)
	}
	o.messages[at] = name
}

// member is a client in a room. Safe for concurrent use.
type member struct {
	fleet  *fleet
	room   string
	home   int // index of the address of its first connection
	client *client.Client

	mu      sync.Mutex
	record  *record  // guarded by mu
	conn    net.Conn // the last one; guarded by mu
	open    bool     // the client has a connection; guarded by mu
	current int      // index of its address; guarded by mu
	goHome  bool     // guarded by mu
	lost    error    // the end of its membership; guarded by mu
	refused int      // handshakes that were answered with an error; guarded by mu
}

// newFleet connects n clients, and lets them join the rooms.
func newFleet(t *testing.T, addresses []string, n, rooms int, history bool) *fleet {
	t.Helper()
	f := &fleet{addresses: addresses, history: history}
	f.orders.messages = make(map[string]string)
	var joining sync.WaitGroup
	turns := make(chan struct{}, 50)
	for i := range n {
		m := f.add(t, i, roomName(i/len(addresses)%rooms))
		joining.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := m.join(t.Context()); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	joining.Wait()
	require.False(t, t.Failed())
	return f
}

// add makes a client, without a connection.
func (f *fleet) add(t *testing.T, i int, room string) *member {
	t.Helper()
	home := i % len(f.addresses)
	m := &member{fleet: f, room: room, home: home, goHome: true, record: newRecord(time.Now())}
	m.record.history = f.history
	c, err := client.New("ws://cluster/ws?room="+url.QueryEscape(room),
		client.WithDialer(m.dial), client.WithOnState(m.state),
		client.WithHeartbeat(3*time.Second), client.WithHandshakeTimeout(3*time.Second))
	require.NoError(t, err)
	m.client = c
	t.Cleanup(func() {
		c.Close()
		<-c.Done()
	})
	r := c.Room(room)
	r.On(event, func(n client.Notify) {
		var msg message
		if err := n.Decode(&msg); err != nil {
			t.Error(err)
			return
		}
		m.note(func(r *record) { r.read(msg, n.Position, time.Now()) })
		f.orders.note(t, n, msg)
	})
	r.OnGap(func(g client.Gap) {
		m.note(func(r *record) { r.gap(time.Now()) })
		if g.Reason == "unknown" {
			t.Errorf("the server has not named a loss: %+v", g)
		}
	})
	c.On("ws.gap", func(client.Notify) { m.note(func(r *record) { r.gapInMove = true }) })
	r.OnLost(func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lost = err
	})
	f.members = append(f.members, m)
	return m
}

func (m *member) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := m.client.Connect(ctx); err != nil {
		return err
	}
	_, err := m.client.Room(m.room).Join(ctx)
	return err
}

// note changes the record.
func (m *member) note(f func(r *record)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.record)
}

// state notes the ends of connections.
func (m *member) state(s client.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open && s.Phase != client.Open {
		m.record.cut(time.Now())
	}
	m.open = s.Phase == client.Open
	if _, ok := errors.AsType[*client.HandshakeError](s.Err); ok {
		m.refused++
	}
}

// dial connects to the first address, and then to another one than before.
func (m *member) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	m.mu.Lock()
	m.record.connecting(time.Now())
	if n := len(m.fleet.addresses); m.goHome || n == 1 {
		m.current = m.home
	} else {
		m.current = (m.current + 1 + rand.IntN(n-1)) % n
	}
	m.goHome = false
	address := m.fleet.addresses[m.current]
	m.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		m.mu.Lock()
		m.conn = conn
		m.mu.Unlock()
	}
	return conn, err
}

// recovery is the times until clients have read messages again.
type recovery struct{ median, longest time.Duration }

// recover waits until each client has read a message of each publisher that was sent after a time.
func (f *fleet) recover(t *testing.T, publishers []string, after time.Time) recovery {
	t.Helper()
	var times []time.Duration
	waiting := slices.Clone(f.members)
	eventually(t, func() bool {
		waiting = slices.DeleteFunc(waiting, func(m *member) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.record.hears(publishers, after)
		})
		for range len(f.members) - len(waiting) - len(times) {
			times = append(times, time.Since(after))
		}
		return len(waiting) == 0
	}, "%v", describer(func() string { return describe(waiting) }))
	return recovery{times[len(times)/2], times[len(times)-1]}
}

// describer is a text that is made when it is printed.
type describer func() string

func (d describer) String() string { return d() }

// describe describes the first of the members.
func describe(members []*member) string {
	if len(members) == 0 {
		return "no client waits"
	}
	m := members[0]
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%d clients wait; the first: %+v, %v, %s, %v, address %d, lost %v", len(members),
		m.client.State(), m.record.tally, m.room, m.record.numbers(), m.current, m.lost)
}

// tally returns the sum of all counts, and examples of broken promises.
func (f *fleet) tally() (sum tally, err error) {
	var faults []error
	for i, m := range f.members {
		m.mu.Lock()
		sum.add(m.record.tally, 1)
		for _, fault := range m.record.faults {
			faults = append(faults, fmt.Errorf("client %d: %s", i, fault))
		}
		m.record.faults = nil
		if m.lost != nil {
			faults = append(faults, fmt.Errorf("client %d is out of its room: %w", i, m.lost))
		}
		m.mu.Unlock()
	}
	return sum, errors.Join(faults[:min(len(faults), 10)]...)
}

// refused returns the number of handshakes that were answered with an error.
func (f *fleet) refused() (n int) {
	for _, m := range f.members {
		m.mu.Lock()
		n += m.refused
		m.mu.Unlock()
	}
	return n
}
