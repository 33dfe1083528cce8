//go:build linux

package ws_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
)

// stall makes the client stop reading: the swarm does not look at its socket
// any more, until resume.
func (c *scenarioConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, unix.EpollCtl(c.swarm.epfd, unix.EPOLL_CTL_DEL, c.fd, nil))
	}
}

// resume makes the client read again.
func (c *scenarioConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, c.swarm.watch(c.fd))
	}
}

// watch puts a socket into the swarm's epoll.
func (s *scenarioSwarm) watch(fd int) error {
	return unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)})
}

// scenarioSoon is scenarioUntil for goroutines other than the test's: it
// reports whether the condition holds in time, and marks the test as failed if
// not. Its patience is shorter than that of who waits for the goroutine.
func scenarioSoon(t testing.TB, condition func() bool, format string, args ...any) bool {
	deadline := time.Now().Add(scenarioPatience / 2)
	poll := time.NewTicker(100 * time.Microsecond)
	defer poll.Stop()
	for ; !condition(); <-poll.C {
		if t.Failed() {
			return false
		}
		if time.Now().After(deadline) {
			return assert.Fail(t, "condition never held", append([]any{format}, args...)...)
		}
	}
	return true
}

// scenarioConfirms is the publisher's number in a stamp that confirms all
// before it.
const scenarioConfirms = math.MaxUint32

// scenarioWitness is a client that reads at all times.
type scenarioWitness struct {
	*scenarioConn
	side  *ws.Client
	heard atomic.Int64 // number of the last stamp of scenarioConfirms
}

// witnesses opens one connection on each event loop.
func (s *scenarioServer) witnesses(swarm *scenarioSwarm) []*scenarioWitness {
	s.t.Helper()
	found := make([]*scenarioWitness, len(s.Stats().Loops))
	for try := 0; slices.Contains(found, nil); try++ {
		before := s.Stats()
		w := new(scenarioWitness)
		query := scenarioQuery(0, -1-try)
		w.scenarioConn = swarm.dial(s.addr[scenarioNative], scenarioDial{query: query, onMessage: func(b []byte) {
			if len(b) >= 8 && binary.BigEndian.Uint32(b) == scenarioConfirms {
				w.heard.Store(int64(binary.BigEndian.Uint32(b[4:])))
			}
		}})
		w.side = s.serverSide(query)
		after := s.Stats()
		loop := slices.IndexFunc(found, func(w *scenarioWitness) bool { return w == nil })
		for i := range found {
			if after.Loops[i].Opened > before.Loops[i].Opened {
				loop = i
			}
		}
		if found[loop] != nil {
			w.hangUp()
			continue
		}
		found[loop] = w
	}
	return found
}

// hear sends the witness a message and waits until it has come: its loop has
// then written, or tried to, what was posted to it before.
func (w *scenarioWitness) hear(t testing.TB) bool {
	next := w.heard.Load() + 1
	scenarioPublish(t, func() error { return w.side.SendBytes(scenarioStamp(scenarioConfirms, uint32(next))) })
	return scenarioSoon(t, func() bool { return w.heard.Load() == next }, "the witness heard nothing")
}

// scenarioReuser is one worker of TestScenarioReusedDescriptors: it opens
// connections one after the other, each in a room of its own.
type scenarioReuser struct {
	*scenarioServer
	swarm *scenarioSwarm
	way   scenarioWay
	id    atomic.Uint64 // of the running connection
	wrong atomic.Int64  // messages that were not for their connection, or came in another shape
}

// scenarioReuseSize is the size of a message: a few of them fill a socket.
const scenarioReuseSize = 16 << 10

// scenarioReuseRoom is the room of a connection.
func scenarioReuseRoom(id uint64) string { return fmt.Sprint("of connection ", id) }

// message is the n-th message to a connection: its identity is all over it.
func (r *scenarioReuser) message(id, n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, id<<32|n), scenarioReuseSize/8)
}

// dial opens a connection and joins its room. The connection checks that it
// gets nothing but what was published there.
func (r *scenarioReuser) dial(id uint64) (*scenarioConn, *ws.Client) {
	query := scenarioQuery(1, int(id))
	last := uint64(0)
	conn, err := r.swarm.tryDial(r.addr[r.way], scenarioDial{query: query, recvBuf: 4096, onMessage: func(b []byte) {
		stamp := binary.BigEndian.Uint64(b)
		if len(b) != scenarioReuseSize || stamp>>32 != id || stamp&math.MaxUint32 <= last || !bytes.Equal(b[8:], b[:len(b)-8]) {
			r.wrong.Add(1)
		}
		last = stamp & math.MaxUint32
	}})
	if !assert.NoError(r.t, err) {
		return nil, nil
	}
	side := r.serverSide(query)
	assert.NoError(r.t, side.JoinRoom(scenarioReuseRoom(id)))
	r.id.Store(id)
	return conn, side
}

// publish publishes to the running connection's room, and to that of the one
// before, whose member is gone or goes, until stop.
func (r *scenarioReuser) publish(stop *atomic.Bool) {
	for n := uint64(1); !stop.Load(); n++ {
		for _, id := range []uint64{r.id.Load(), r.id.Load() - 1} {
			if err := r.BroadcastToRoom(scenarioReuseRoom(id), r.message(id, n), nil); err != nil {
				assert.ErrorIs(r.t, err, ws.ErrRoomNotFound)
			}
		}
	}
}

// scenarioFDs knows which of the server's descriptors were in use.
type scenarioFDs struct {
	mu     sync.Mutex
	seen   map[int]int // connections by descriptor; guarded by mu
	reused int         // connections whose descriptor another had before; guarded by mu
}

// note finds the server's descriptor of a connection: the socket in this
// process whose peer it is.
func (f *scenarioFDs) note(c *scenarioConn) {
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
	const workers, rounds, queueBytes = 4, 40, 256 << 10
	s := scenarioStart(t, ws.WithQueueBytes(queueBytes), func(c *ws.Config) { c.Broadcast.QueueSize = 64 })
	swarm := scenarioNewSwarm(t)
	fds := &scenarioFDs{seen: make(map[int]int)}
	var working sync.WaitGroup
	reusers := make([]*scenarioReuser, workers)
	for w := range reusers {
		r := &scenarioReuser{scenarioServer: s, swarm: swarm, way: []scenarioWay{scenarioNative, scenarioNetHTTP}[w/3]}
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
				if r.way == scenarioNative {
					fds.note(conn)
				}
				scenarioSoon(t, func() bool { return conn.received.Load() >= 2 }, "a new connection gets nothing")
				conn.stall()
				scenarioSoon(t, func() bool { return side.QueuedBytes() > queueBytes-2*scenarioReuseSize }, "the queue did not fill")
				conn.abort()
			}
		})
	}
	scenarioWithin(t, "churn", working.Wait)
	for w, r := range reusers {
		assert.Zero(t, r.wrong.Load(), "worker %d: messages that were for others, or torn", w)
	}
	t.Logf("%d of %d descriptors were used before", fds.reused, (workers-1)*rounds)
	assert.Greater(t, fds.reused, (workers-1)*rounds/2, "descriptors were not reused: this shows nothing")
}
