//go:build linux

package integration_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// ticker is one publisher of numbered messages at full speed.
type ticker struct {
	begun, finished atomic.Uint32 // messages whose publish was called, has returned
}

// times are the numbers of each publisher at one moment.
type times [2]uint32

// visit is a time that a member was in the room, on the publishers'
// clocks.
type visit struct {
	after   times // all up to these must not come
	from    times // all behind these must come
	until   times // up to these
	before  times // none behind these may come
	mayLose bool  // it went by itself
}

// churn is the state of TestScenarioMembersGoDuringFanOut.
type churn struct {
	*harness.Server
	swarm   *clientSwarm
	tickers [2]ticker
}

func (c *churn) begun() (t times) {
	for p := range c.tickers {
		t[p] = c.tickers[p].begun.Load()
	}
	return t
}

func (c *churn) finished() (t times) {
	for p := range c.tickers {
		t[p] = c.tickers[p].finished.Load()
	}
	return t
}

// visitor is a member that comes and goes.
type visitor struct {
	*swarmConn
	side  *ws.Client
	heard atomic.Int64

	mu  sync.Mutex
	got [2][]uint32 // of each publisher; guarded by mu
}

func (v *visitor) take(b []byte) {
	p, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if p == confirms {
		v.heard.Store(int64(n))
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got[p] = append(v.got[p], n)
}

// check compares the messages of a visit with the model: one run of each publisher's messages
// without a gap.
func (v *visitor) check(t testing.TB, at visit, how string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for p, got := range v.got {
		for i := 1; i < len(got); i++ {
			if !assert.Equal(t, got[i-1]+1, got[i], "%s: publisher %d: a gap, or out of order", how, p) {
				return
			}
		}
		if len(got) > 0 {
			assert.Greater(t, got[0], at.after[p], "%s: publisher %d: from before the member joined", how, p)
			assert.LessOrEqual(t, got[len(got)-1], at.before[p], "%s: publisher %d: from behind the member's end", how, p)
		}
		if must := at.until[p] > at.from[p]; must && !at.mayLose && assert.NotEmpty(t, got, "%s: publisher %d", how, p) {
			assert.LessOrEqual(t, got[0], at.from[p]+1, "%s: publisher %d: the first is missing", how, p)
			assert.GreaterOrEqual(t, got[len(got)-1], at.until[p], "%s: publisher %d: the last is missing", how, p)
		}
		v.got[p] = nil
	}
}

// confirm waits until all has come that was sent before.
func (v *visitor) confirm(t testing.TB) bool {
	next := v.heard.Load() + 1
	publish(t, func() error { return v.side.SendBytes(stamp(confirms, uint32(next))) })
	return soon(t, func() bool { return v.heard.Load() == next }, "not confirmed")
}

// visit lets a new connection join and leave several times, and then end.
func (c *churn) visit(id int) {
	v := new(visitor)
	query := queryOf(0, id)
	way := []harness.Way{harness.Native, harness.NetHTTP}[id%2]
	var err error
	v.swarmConn, err = c.swarm.tryDial(c.AddrOf(way), dialOptions{query: query, onMessage: v.take})
	if !assert.NoError(c.T, err) {
		return
	}
	v.side = serverSide(c.Server, query)
	for round := range 4 {
		var at visit
		at.after = c.finished()
		assert.NoError(c.T, v.side.JoinRoom("news"))
		at.from = c.begun()
		enough := 1 + id%7
		soon(c.T, func() bool { return c.finished()[0] > at.from[0]+uint32(enough) }, "the publisher stands")
		at.until = c.finished()
		switch {
		case round < 3:
			v.side.LeaveRoom("news")
			at.before = c.begun()
			soon(c.T, func() bool { return c.finished()[0] > at.before[0]+16 }, "the publisher stands")
			if v.confirm(c.T) { // with space for messages that must not come
				v.check(c.T, at, "left")
			}
		case id%3 == 0:
			v.side.CloseWithCode(4002, "")
			at.before = c.begun()
			soon(c.T, v.over.Load, "the end of a connection")
			assert.EqualValues(c.T, 4002, v.closeCode.Load())
			v.check(c.T, at, "closed by the server")
		case id%3 == 1:
			assert.NoError(c.T, v.send(gobwas.OpClose, gobwas.NewCloseFrameBody(4003, "")))
			soon(c.T, v.over.Load, "the end of a connection")
			at.before, at.mayLose = c.begun(), true // its close frame is read before the messages that wait in the ring
			v.check(c.T, at, "closed by the client")
		default:
			v.abort()
			at.before, at.mayLose = c.begun(), true
			v.check(c.T, at, "reset")
		}
	}
}

// publish publishes at full speed until stop, but not so far ahead of the
// steady members that memory matters.
func (c *churn) publish(p int, steady []*swarmConn, stop *atomic.Bool) {
	for !stop.Load() && !c.T.Failed() {
		n := c.tickers[p].begun.Add(1)
		if !assert.NoError(c.T, c.BroadcastToRoom("news", stamp(p, n), nil)) {
			return
		}
		c.tickers[p].finished.Store(n)
		if n%512 == 0 {
			for _, s := range steady {
				soon(c.T, func() bool { return s.received.Load() > int64(n)-2048 }, "a steady member is behind")
			}
		}
	}
}

// Members leave, are closed by the server, close themselves and reset while
// fan-outs to them are under way: none gets a message that was published after
// its leave had returned, or misses one from between; those that stay lose
// nothing.
func TestScenarioMembersGoDuringFanOut(t *testing.T) {
	const steady, churners, visits = 20, 4, 24
	c := &churn{Server: startScenario(t, unbounded, func(c *ws.Config) { c.Broadcast.QueueSize = 64 })}
	c.swarm = newSwarm(t)
	conns := make([]*swarmConn, steady)
	logs := make([]numberLog, steady)
	for i := range conns {
		logs[i] = make(numberLog, len(c.tickers))
		conns[i] = c.swarm.dial(c.AddrOf(harness.Native),
			dialOptions{query: queryOf(0, -1-i), onMessage: logs[i].take})
		require.NoError(t, serverSide(c.Server, queryOf(0, -1-i)).JoinRoom("news"))
	}
	var stop atomic.Bool
	var publishing, churning sync.WaitGroup
	for p := range c.tickers {
		publishing.Go(func() { c.publish(p, conns, &stop) })
	}
	for w := range churners {
		churning.Go(func() {
			for n := 0; n < visits && !t.Failed(); n++ {
				c.visit(w*visits + n)
			}
		})
	}
	endsInTime(t, "churn", churning.Wait)
	stop.Store(true)
	endsInTime(t, "publishing", publishing.Wait)
	total := int64(0)
	for _, n := range c.finished() {
		total += int64(n)
	}
	for i, conn := range conns {
		harness.Eventually(t, func() bool { return conn.received.Load() >= total }, "all messages to steady member %d", i)
		for p, log := range logs[i] {
			require.Len(t, log, int(c.finished()[p]), "publisher %d to steady member %d", p, i)
			for k, n := range log {
				require.EqualValues(t, k+1, n, "publisher %d to steady member %d", p, i)
			}
		}
	}
	harness.Eventually(t, func() bool { return len(c.GetRoomMembers("news")) == steady && c.GetClientCount() == steady },
		"only the steady are left")
	t.Logf("%d messages, %d visits", total, churners*visits*4)
}

// A room is deleted right after a publish to it: the message arrives always, and ahead of later
// messages.
func TestScenarioDeleteRoomRightAfterBroadcast(t *testing.T) {
	const publishers, members, rounds = 4, 12, 400
	for _, ring := range []int{2, 1024} {
		t.Run(fmt.Sprintf("ring=%d", ring), func(t *testing.T) {
			s := startScenario(t, unbounded, func(c *ws.Config) { c.Broadcast.QueueSize = ring })
			swarm := newSwarm(t)
			conns := make([]*swarmConn, members)
			logs := make([]numberLog, members)
			sides := make([]*ws.Client, members)
			for i := range conns {
				logs[i] = make(numberLog, publishers)
				conns[i] = swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i), onMessage: logs[i].take})
				sides[i] = serverSide(s, queryOf(0, i))
			}
			var publishing sync.WaitGroup
			for p := range publishers {
				publishing.Go(func() {
					room := fmt.Sprint("room ", p)
					for n := range uint32(rounds) {
						for _, c := range sides {
							assert.NoError(t, c.JoinRoom(room))
						}
						assert.NoError(t, s.BroadcastToRoom(room, stamp(p, 2*n), nil))
						s.DeleteRoom(room)
						assert.ErrorIs(t, s.BroadcastToRoom(room, stamp(p, 0), nil), ws.ErrRoomNotFound)
						for _, c := range sides {
							publish(t, func() error { return c.SendBytes(stamp(p, 2*n+1)) })
						}
					}
				})
			}
			endsInTime(t, "publishing", publishing.Wait)
			const all = publishers * rounds * 2
			for i, c := range conns {
				harness.Eventually(t, func() bool { return c.received.Load() >= all }, "all messages to member %d: %v", i,
					lazyText(func() string { return fmt.Sprintf("%d of %d", c.received.Load(), all) }))
				for p, log := range logs[i] {
					require.Len(t, log, rounds*2, "publisher %d to member %d", p, i)
					for k, n := range log {
						require.EqualValues(t, k, n, "publisher %d to member %d", p, i)
					}
				}
				require.Empty(t, sides[i].GetRooms())
			}
		})
	}
}

// Publishers in a tight loop do not keep the only event loop from serving a
// client that sends.
func TestScenarioPublishersInATightLoop(t *testing.T) { tightLoop(t, 2*time.Second) }

func tightLoop(t *testing.T, length time.Duration) {
	const publishers, members, size = 4, 300, 512
	s := startScenario(t, ws.WithHandlerMode(ws.Inline), func(c *ws.Config) { c.Loops = 1 })
	echoAll(s.Manager)
	swarm := newSwarm(t)
	for i := range members {
		swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i)})
	}
	for _, c := range serverSides(s) {
		require.NoError(t, c.JoinRoom("news"))
	}
	witness := witnesses(s, newSwarm(t))[0] // a swarm of its own: the members' must not hold it up
	var stop atomic.Bool
	var publishing sync.WaitGroup
	var published atomic.Int64
	for range publishers {
		publishing.Go(func() {
			msg := make([]byte, size)
			for ; !stop.Load(); published.Add(1) {
				if !assert.NoError(t, s.BroadcastToRoom("news", msg, nil)) {
					return
				}
			}
		})
	}
	defer publishing.Wait()
	defer stop.Store(true)
	var took []time.Duration
	for began := time.Now(); time.Since(began) < length || len(took) < 20 || published.Load() <= 1000; {
		if time.Since(began) > harness.Patience {
			break
		}
		sent := time.Now()
		require.True(t, witness.echo(t), "echo %d", len(took))
		took = append(took, time.Since(sent))
	}
	stop.Store(true)
	publishing.Wait()
	slices.Sort(took)
	t.Logf("%d messages published to %d members, %d delivered; %d echoes: p50 %v, p99 %v", published.Load(), members,
		s.Stats().Total.MessagesOut, len(took), took[len(took)/2], took[len(took)*99/100])
	assert.Greater(t, published.Load(), int64(1000), "that was no tight loop")
}
