package integration_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// settles waits until p and the manager's gauges agree with the truth.
func settles(p *harness.Presence, t *testing.T, s *harness.Server, r *slowRecorder, clients, members int,
	rooms ...string,
) {
	t.Helper()
	harness.Eventually(t, func() bool {
		connected, in := p.Count()
		ok := connected == clients && in == members && r.Get("connected") == clients && r.Get("rooms") == s.GetRoomCount()
		for _, room := range rooms {
			ok = ok && r.Get("members "+room) == len(s.GetRoomMembers(room))
		}
		return ok
	}, "not %d clients and %d memberships by events: %v", clients, members, p)
	require.Empty(t, p.FirstWrong(), "out of order")
	require.Zero(t, s.EventBus.GetDroppedEventCount())
}

// slowRecorder is a recorder whose calls overtake each other.
type slowRecorder struct{ *harness.Recorder }

func newSlowRecorder() *slowRecorder { return &slowRecorder{harness.NewRecorder()} }

func (r *slowRecorder) SetConnectionCount(n int) { linger(); r.Recorder.SetConnectionCount(n) }
func (r *slowRecorder) SetRoomCount(n int)       { linger(); r.Recorder.SetRoomCount(n) }
func (r *slowRecorder) SetRoomMemberCount(id string, n int) {
	linger()
	r.Recorder.SetRoomMemberCount(id, n)
}

// linger takes a random time.
func linger() {
	for range rand.IntN(5) {
		runtime.Gosched()
	}
}

// A room is deleted again and again while its members join it anew: a list kept from
// events, and the gauges, end at the truth.
func TestPresenceThroughDeleteAndRejoin(t *testing.T) {
	r := newSlowRecorder()
	s := harness.Start(t, ws.WithMetrics(r), ws.WithLoops(4))
	p := harness.FollowEvents(s.Manager)
	const clients, rounds = 100, 60
	conns := make([]*ws.Client, clients)
	for i := range conns {
		_, conns[i] = s.DialClient(harness.Native)
		require.NoError(t, conns[i].JoinRoom("r"))
	}
	for range rounds {
		var all sync.WaitGroup
		all.Go(func() { s.DeleteRoom("r") })
		for _, c := range conns {
			all.Go(func() {
				for c.JoinRoom("r") != nil { // it is in the room until that is deleted
					runtime.Gosched()
				}
			})
		}
		all.Wait()
		require.Len(t, s.GetRoomMembers("r"), clients)
		settles(p, t, s, r, clients, clients, "r")
	}
	s.DeleteRoom("r")
	settles(p, t, s, r, clients, 0, "r")
}

// Several goroutines let one client join and leave: the events alternate.
func TestJoinAndLeaveEventsAlternate(t *testing.T) {
	r := newSlowRecorder()
	s := harness.Start(t, ws.WithMetrics(r))
	p := harness.FollowEvents(s.Manager)
	_, c := s.DialClient(harness.Native)
	for range 20 {
		var all sync.WaitGroup
		for g := range 6 {
			all.Go(func() {
				for i := range 100 {
					switch {
					case (g+i)%2 == 0:
						_ = c.JoinRoom("r")
					case i%10 == 9:
						s.DeleteRoom("r")
					default:
						c.LeaveRoom("r")
					}
				}
			})
		}
		all.Wait()
		settles(p, t, s, r, 1, len(c.GetRooms()), "r")
	}
}

// Devices come back under the IDs of their old connections, whose handlers are still at
// work: the disconnect comes before the connect.
func TestDisconnectComesBeforeTheNextConnect(t *testing.T) {
	t.Parallel()
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		r := newSlowRecorder()
		s := harness.Start(t, mode, ws.WithAuthenticate(harness.ByQuery), ws.WithMetrics(r))
		p := harness.FollowEvents(s.Manager)
		require.NoError(t, s.Register("slow", func(c *ws.Client, _ *ws.Message) error {
			_ = c.JoinRoom("r")
			<-time.After(2 * time.Millisecond)
			return nil
		}))
		const devices, rounds = 8, 25
		var all sync.WaitGroup
		var failed atomic.Int64
		for d := range devices {
			all.Go(func() {
				for range rounds {
					var c *harness.Client
					if !harness.Holds(func() (ok bool) {
						var err error
						c, err = s.TryDial(w, fmt.Sprint("id=device", d))
						return err == nil
					}) {
						failed.Add(1)
						return
					}
					c.Send(harness.Request("slow", "1", ""), harness.Request("slow", "2", ""))
					c.Abort()
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load())
		settles(p, t, s, r, 0, 0, "r")
	})
}

// The connect of a client is its first event, however early others find the client.
func TestConnectIsTheFirstEvent(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		p := harness.FollowEvents(s.Manager)
		stop := make(chan struct{})
		var joiner sync.WaitGroup
		joiner.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.RangeClients(func(c *ws.Client) bool { _ = c.JoinRoom("r"); return true })
				}
			}
		})
		for range 200 {
			s.Dial(w).Abort()
		}
		close(stop)
		joiner.Wait()
		harness.Eventually(t, func() bool { c, m := p.Count(); return c == 0 && m == 0 }, "%v", p)
		require.Empty(t, p.FirstWrong(), "out of order")
	})
}

// A disconnect names the client that has gone.
func TestEventsHaveTheirClient(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
		events := s.Events(ws.EventClientDisconnected)
		c, sc := s.DialClient(w, "id=a", "user=7", "name=Ann")
		addr := sc.RemoteAddr()
		c.Abort()
		e := harness.Receive(t, events, "no disconnect")
		require.Same(t, sc, e.Client)
		assert.EqualValues(t, 7, e.Client.UserID)
		name, _ := e.Client.GetMetadata("name")
		assert.Equal(t, "Ann", name)
		assert.Equal(t, addr, e.Client.RemoteAddr())
		assert.NotEmpty(t, addr)
	})
}
