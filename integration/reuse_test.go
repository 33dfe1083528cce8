//go:build linux

package integration_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// reuser is one worker of TestScenarioReusedDescriptors: it opens
// connections one after the other, each in a room of its own.
type reuser struct {
	*harness.Server
	swarm *clientSwarm
	way   harness.Way
	id    atomic.Uint64 // of the running connection
	wrong atomic.Int64  // messages that were not for their connection, or came in another shape
}

// reuseSize is the size of a message: a few of them fill a socket.
const reuseSize = 16 << 10

// reuseRoom is the room of a connection.
func reuseRoom(id uint64) string { return fmt.Sprint("of connection ", id) }

// message is the n-th message to a connection: its identity is all over it.
func (r *reuser) message(id, n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, id<<32|n), reuseSize/8)
}

// dial opens a connection and joins its room. The connection checks that it gets only messages that
// were published there.
func (r *reuser) dial(id uint64) (*swarmConn, *ws.Client) {
	query := queryOf(1, int(id))
	last := uint64(0)
	conn, err := r.swarm.tryDial(r.AddrOf(r.way), dialOptions{query: query, recvBuf: 4096, onMessage: func(b []byte) {
		stamp := binary.BigEndian.Uint64(b)
		if len(b) != reuseSize || stamp>>32 != id || stamp&math.MaxUint32 <= last ||
			!bytes.Equal(b[8:], b[:len(b)-8]) {
			r.wrong.Add(1)
		}
		last = stamp & math.MaxUint32
	}})
	if !assert.NoError(r.T, err) {
		return nil, nil
	}
	side := serverSide(r.Server, query)
	assert.NoError(r.T, side.JoinRoom(reuseRoom(id)))
	r.id.Store(id)
	return conn, side
}

// publish publishes to the running connection's room, and to the room of the connection before,
// whose member is gone or goes, until stop.
func (r *reuser) publish(stop *atomic.Bool) {
	for n := uint64(1); !stop.Load(); n++ {
		for _, id := range []uint64{r.id.Load(), r.id.Load() - 1} {
			if err := r.BroadcastToRoom(reuseRoom(id), r.message(id, n), nil); err != nil {
				assert.ErrorIs(r.T, err, ws.ErrRoomNotFound)
			}
		}
	}
}

// usedDescriptors knows which of the server's descriptors were in use.
type usedDescriptors struct {
	mu     sync.Mutex
	seen   map[int]int // connections by descriptor; guarded by mu
	reused int         // connections whose descriptor another had before; guarded by mu
}

// note finds the server's descriptor of a connection: the socket in this
// process whose peer it is.
func (f *usedDescriptors) note(c *swarmConn) {
	c.mu.Lock()
	local, err := unix.Getsockname(c.fd)
	c.mu.Unlock()
	if err != nil {
		return
	}
	for fd := range 1024 {
		if peer, err := unix.Getpeername(fd); err == nil && reflect.DeepEqual(peer, local) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.seen[fd]++; f.seen[fd] > 1 {
				f.reused++
			}
			return
		}
	}
}

// Connections are reset while their queues are full and their sockets blocked,
// and new ones take their descriptors at once, while publishers go on: no
// connection sees a byte that was for another.
func TestScenarioReusedDescriptors(t *testing.T) {
	const workers, rounds, queueBytes = 4, 30, 256 << 10
	s := startScenario(t, ws.WithQueueBytes(queueBytes), func(c *ws.Config) { c.Broadcast.QueueSize = 64 })
	swarm := newSwarm(t)
	fds := &usedDescriptors{seen: make(map[int]int)}
	var working sync.WaitGroup
	reusers := make([]*reuser, workers)
	for w := range reusers {
		r := &reuser{Server: s, swarm: swarm, way: []harness.Way{harness.Native, harness.NetHTTP}[w/3]}
		reusers[w] = r
		working.Go(func() {
			var stop atomic.Bool
			var publishing sync.WaitGroup
			publishing.Go(func() { r.publish(&stop) })
			defer publishing.Wait()
			defer stop.Store(true)
			for n := 0; n < rounds && !t.Failed(); n++ {
				conn, side := r.dial(uint64(w)<<16 + uint64(n) + 1)
				if side == nil {
					return
				}
				if r.way == harness.Native {
					fds.note(conn)
				}
				soon(t, func() bool { return conn.received.Load() >= 2 }, "a new connection gets nothing")
				conn.stall()
				soon(t, func() bool { return side.QueuedBytes() > queueBytes-2*reuseSize },
					"the queue did not fill")
				conn.abort()
			}
		})
	}
	endsInTime(t, "churn", working.Wait)
	for w, r := range reusers {
		assert.Zero(t, r.wrong.Load(), "worker %d: messages that were for others, or torn", w)
	}
	t.Logf("%d of %d descriptors were used before", fds.reused, (workers-1)*rounds)
	assert.Greater(t, fds.reused, (workers-1)*rounds/2, "descriptors were not reused: this shows nothing")
}
