package ws_test

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
)

// presence is who is there by the events alone. Safe for concurrent use.
type presence struct {
	mu        sync.Mutex
	connected map[string]*ws.Client
	members   map[string]bool // client and room
	wrong     []string
}

func followEvents(m *ws.Manager) *presence {
	p := &presence{connected: map[string]*ws.Client{}, members: map[string]bool{}}
	for _, typ := range []ws.EventType{
		ws.EventClientConnected, ws.EventClientDisconnected, ws.EventRoomJoined, ws.EventRoomLeft,
	} {
		m.Subscribe(typ, p.note)
	}
	return p
}

func (p *presence) note(e ws.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Type {
	case ws.EventClientConnected:
		p.expect(e, p.connected[e.ClientID] == nil)
		p.connected[e.ClientID] = e.Client
	case ws.EventClientDisconnected:
		p.expect(e, p.connected[e.ClientID] == e.Client)
		delete(p.connected, e.ClientID)
	default:
		member := membershipOf(e.ClientID, e.Data.(string))
		p.expect(e, p.members[member] == (e.Type == ws.EventRoomLeft) && p.connected[e.ClientID] == e.Client)
		p.members[member] = e.Type == ws.EventRoomJoined
	}
}

func (p *presence) expect(e ws.Event, right bool) {
	if !right {
		p.wrong = append(p.wrong, fmt.Sprint(e.Type, " ", e.ClientID, " ", e.Data))
	}
}

// String returns the numbers of p, for failures.
func (p *presence) String() string {
	connected, members := p.count()
	return fmt.Sprint(connected, " clients, ", members, " memberships, out of order: ", p.firstWrong())
}

// firstWrong is the first event that came out of order, "" if there is none.
func (p *presence) firstWrong() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) == 0 {
		return ""
	}
	return fmt.Sprint(len(p.wrong), ", first ", p.wrong[0])
}

func membershipOf(client, room string) string { return client + " in " + room }

// count returns how many clients are connected, and how many memberships there are.
func (p *presence) count() (connected, members int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, in := range p.members {
		if in {
			members++
		}
	}
	return len(p.connected), members
}

// settles waits until p and the manager's gauges agree with the truth.
func (p *presence) settles(t *testing.T, s *server, r *slowRecorder, clients, members int, rooms ...string) {
	t.Helper()
	eventually(t, func() bool {
		connected, in := p.count()
		ok := connected == clients && in == members && r.get("connected") == clients && r.get("rooms") == s.GetRoomCount()
		for _, room := range rooms {
			ok = ok && r.get("members "+room) == len(s.GetRoomMembers(room))
		}
		return ok
	}, "not %d clients and %d memberships by events: %v", clients, members, p)
	require.Empty(t, p.firstWrong(), "out of order")
	require.Zero(t, s.EventBus.GetDroppedEventCount())
}

// slowRecorder is a recorder whose calls overtake each other.
type slowRecorder struct{ *recorder }

func newSlowRecorder() *slowRecorder { return &slowRecorder{newRecorder()} }

func (r *slowRecorder) SetConnectionCount(n int) { linger(); r.recorder.SetConnectionCount(n) }
func (r *slowRecorder) SetRoomCount(n int)       { linger(); r.recorder.SetRoomCount(n) }
func (r *slowRecorder) SetRoomMemberCount(id string, n int) {
	linger()
	r.recorder.SetRoomMemberCount(id, n)
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
	s := start(t, ws.WithMetrics(r), ws.WithLoops(4))
	p := followEvents(s.Manager)
	const clients, rounds = 100, 60
	conns := make([]*ws.Client, clients)
	for i := range conns {
		_, conns[i] = s.dialClient(native)
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
		p.settles(t, s, r, clients, clients, "r")
	}
	s.DeleteRoom("r")
	p.settles(t, s, r, clients, 0, "r")
}

// Several goroutines let one client join and leave: the events alternate.
func TestJoinAndLeaveEventsAlternate(t *testing.T) {
	r := newSlowRecorder()
	s := start(t, ws.WithMetrics(r))
	p := followEvents(s.Manager)
	_, c := s.dialClient(native)
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
		p.settles(t, s, r, 1, len(c.GetRooms()), "r")
	}
}

// Devices come back under the IDs of their old connections, whose handlers are still at
// work: the disconnect comes before the connect.
func TestDisconnectComesBeforeTheNextConnect(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		r := newSlowRecorder()
		s := start(t, mode, ws.WithAuthenticate(byQuery), ws.WithMetrics(r))
		p := followEvents(s.Manager)
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
					var c *client
					if !waitFor(func() (ok bool) {
						var err error
						c, err = s.tryDial(w, fmt.Sprint("id=device", d))
						return err == nil
					}) {
						failed.Add(1)
						return
					}
					c.send(request("slow", "1", ""), request("slow", "2", ""))
					c.abort()
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load())
		p.settles(t, s, r, 0, 0, "r")
	})
}

// The connect of a client is its first event, however early others find the client.
func TestConnectIsTheFirstEvent(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		p := followEvents(s.Manager)
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
			s.dial(w).abort()
		}
		close(stop)
		joiner.Wait()
		eventually(t, func() bool { c, m := p.count(); return c == 0 && m == 0 }, "%v", p)
		require.Empty(t, p.firstWrong(), "out of order")
	})
}

// A disconnect names the client that has gone.
func TestEventsHaveTheirClient(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithAuthenticate(byQuery))
		events := s.events(ws.EventClientDisconnected)
		c, sc := s.dialClient(w, "id=a", "user=7", "name=Ann")
		addr := sc.RemoteAddr()
		c.abort()
		e := receive(t, events, "no disconnect")
		require.Same(t, sc, e.Client)
		assert.EqualValues(t, 7, e.Client.UserID)
		name, _ := e.Client.GetMetadata("name")
		assert.Equal(t, "Ann", name)
		assert.Equal(t, addr, e.Client.RemoteAddr())
		assert.NotEmpty(t, addr)
	})
}

// While subscribers are far behind, no client is taken in, so that the connects and
// disconnects, which are never dropped, are bounded.
func TestConnectsAreRefusedWhileSubscribersAreBehind(t *testing.T) {
	const most = ws.MaxQueuedEvents
	s := start(t, ws.WithMaxConnections(10))
	release := make(chan struct{})
	resume := sync.OnceFunc(func() { close(release) })
	t.Cleanup(resume)
	var connects, disconnects atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) {
		<-release
		connects.Add(1)
	})
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnects.Add(1) })
	s.dial(native)
	eventually(t, func() bool { return ws.QueuedLifecycle(s.Manager) == 0 }, "no event is handed out")
	ws.FillEventBus(s.Manager, ws.EventClientDisconnected, most-1)
	s.dial(overNet) // the last
	for _, w := range []way{native, overNet} {
		c := s.dialTCP(w)
		c.raw(upgradeRequest("/ws", ""))
		resp, body := c.response()
		assert.Equal(t, 503, resp.StatusCode, body)
	}
	resume()
	eventually(t, func() bool { return connects.Load() == 2 && disconnects.Load() == most-1 }, "events are missing")
	s.dial(native)
	s.dial(overNet)
}
