package integration_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
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

// heldLoop adds the handler "hold", which holds its event loop until release is
// called.
func heldLoop(s *harness.Server) (held <-chan struct{}, release func()) {
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	require.NoError(s.T, s.Register("hold", func(*ws.Client, *ws.Message) error {
		entered <- struct{}{}
		<-gate
		return nil
	}, ws.RunInline()))
	release = sync.OnceFunc(func() { close(gate) })
	s.T.Cleanup(release)
	return entered, release
}

// hold makes a new client hold the loop that has it.
func hold(s *harness.Server, held <-chan struct{}) {
	s.Dial(harness.Native).Send(harness.Request("hold", "1", "{}"))
	harness.Receive(s.T, held, "the handler does not run")
}

// Connections of net/http that come at once are spread evenly, though none of
// them is open when the next one chooses its loop.
func TestEnrollSpreadsABurst(t *testing.T) {
	const loops, each = 16, 20
	s := harness.Start(t, ws.WithLoops(loops))
	var gate, dialing sync.WaitGroup
	gate.Add(1)
	for range loops * each {
		dialing.Go(func() {
			gate.Wait()
			s.Dial(harness.NetHTTP)
		})
	}
	gate.Done()
	dialing.Wait()
	for i, loop := range s.Stats().Loops {
		assert.InDelta(t, each, loop.Connections, 4, "loop %d", i)
	}
}

// A held loop costs the connections that it would get, and these no longer than
// the handshake's timeout.
func TestEnrollOnAHeldLoop(t *testing.T) {
	const loops, clients = 4, 40
	s := harness.Start(t, ws.WithLoops(loops), func(c *ws.Config) { c.HandshakeTimeout = 2 * time.Second })
	held, release := heldLoop(s)
	hold(s, held)
	var dialing sync.WaitGroup
	var answered, refused atomic.Int64
	for range clients {
		done := make(chan struct{})
		dialing.Go(func() {
			defer close(done)
			c := s.DialTCP(harness.NetHTTP)
			c.WriteRaw(harness.UpgradeRequest("/ws", ""))
			resp, _ := c.ReadResponse()
			switch resp.StatusCode {
			case http.StatusSwitchingProtocols:
				answered.Add(1)
			case http.StatusServiceUnavailable:
				refused.Add(1)
				c.ExpectEOF()
			}
		})
		select { // one after the other, so that each choice of a loop sees the earlier ones
		case <-done:
		case <-time.After(50 * time.Millisecond):
		}
	}
	dialing.Wait()
	assert.EqualValues(t, clients, answered.Load()+refused.Load())
	assert.GreaterOrEqual(t, answered.Load(), int64(clients*(loops-1)/loops-2))
	for range refused.Load() {
		harness.Eventually(t, func() bool {
			err := harness.Receive(t, s.Upgrades, "HandleUpgrade does not return")
			return errors.Is(err, context.DeadlineExceeded)
		}, "no call of HandleUpgrade says why")
	}
	assert.EqualValues(t, answered.Load()+1, s.GetClientCount())
	release()
	s.Dial(harness.NetHTTP)
	harness.Eventually(t, func() bool { return s.Stats().Total.Connections == int(answered.Load())+2 },
		"the connections of the refused stay")
	assert.EqualValues(t, answered.Load()+2, s.GetClientCount(), "a refused client came back")
}

// On a Unix listener, too, a held loop does not keep newcomers from the others.
func TestAcceptorWithAHeldLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	s := harness.Start(t, func(c *ws.Config) { c.ListenAddr, c.Loops = "unix://"+path, 2 })
	held, release := heldLoop(s)
	defer release()
	dial := func() net.Conn {
		nc, err := net.Dial("unix", path)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		_, err = nc.Write([]byte(harness.UpgradeRequest("/ws", "")))
		require.NoError(t, err)
		return nc
	}
	first := dial()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 1 }, "no client")
	_, err := first.Write([]byte(harness.Frame(gobwas.OpText, harness.Request("hold", "1", "{}"))))
	require.NoError(t, err)
	harness.Receive(t, held, "the handler does not run")
	const clients = 20
	for range clients {
		dial()
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() >= clients/2 },
		"newcomers wait for the loop that is held")
	release()
	harness.Eventually(t, func() bool { return s.GetClientCount() == clients+1 }, "not all came in")
}

// Shutdown returns when its context ends, though a handler holds a loop. The other
// loop's clients are told at once, and all is over when the handler returns.
func TestShutdownWithAHeldLoop(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]bool{"its ring is free": false, "its ring is full": true} {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, func(c *ws.Config) { c.Broadcast.QueueSize, c.Broadcast.Timeout = 8, 10*time.Millisecond })
			held, release := heldLoop(s)
			const clients = 8
			var others []*harness.Client
			for range clients {
				others = append(others, s.Dial(harness.NetHTTP))
			}
			hold(s, held)
			for fill && s.Stats().Total.InboxLen < 8 {
				s.BroadcastAll([]byte("fill"))
			}
			var told atomic.Int64
			for _, c := range others {
				go func() {
					for f, err := harness.ReadFrame(c.R); err == nil; f, err = harness.ReadFrame(c.R) {
						if f.Header.OpCode == gobwas.OpClose {
							told.Add(1)
							return
						}
					}
				}()
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			returned := make(chan error, 1)
			go func() { returned <- s.Shutdown(ctx) }()
			assert.ErrorIs(t, harness.Receive(t, returned, "Shutdown hangs"), context.DeadlineExceeded)
			harness.Eventually(t, func() bool { return told.Load() >= clients/2-1 }, "clients of the loop that is not held")
			assert.Empty(t, s.Ran, "Run returns though a loop is held")
			release()
			s.Stop()
		})
	}
}

// A client that hangs up while Authenticate runs is never seen, not even in the
// time between its admission and the loop's look at it.
func TestHungUpDuringAuthenticateIsNoClient(t *testing.T) {
	entered, gate := make(chan struct{}), make(chan struct{})
	s := harness.Start(t, ws.WithLoops(1), ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		if r.URL.RawQuery == "wait" {
			entered <- struct{}{}
			<-gate
		}
		if r.URL.RawQuery != "" {
			return []ws.ClientOption{ws.WithClientID("ann")}, nil
		}
		return nil, nil
	}))
	held, release := heldLoop(s)
	holder := s.Dial(harness.Native)
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws?wait", ""))
	harness.Receive(t, entered, "Authenticate does not run")
	c.Abort()
	harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 1 }, "the connection stays")
	holder.Send(harness.Request("hold", "1", "{}"))
	harness.Receive(t, held, "the handler does not run")
	close(gate)
	harness.Eventually(t, func() bool { return s.Stats().Stuck == 0 }, "Authenticate does not return")
	_, ok := s.GetClient("ann")
	assert.False(t, ok, "found though it has never connected")
	s.RangeClients(func(c *ws.Client) bool {
		return assert.NotEqual(t, "ann", c.ID, "found though it has never connected")
	})
	release()
	harness.Eventually(t, func() bool { return upgradeStatus(s, "/ws?again") == http.StatusSwitchingProtocols },
		"its ID is not given back")
}

// upgradeStatus is the answer of net/http to an upgrade request.
func upgradeStatus(s *harness.Server, path string) int {
	c := s.DialTCP(harness.NetHTTP)
	c.WriteRaw(harness.UpgradeRequest(path, ""))
	resp, _ := c.ReadResponse()
	return resp.StatusCode
}

// While a loop is held and its ring is full, nothing waits for ever: a join gives up, and a call
// that cannot be refused does not wait.
func TestCallsOnAHeldLoop(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(1), func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 8, 50*time.Millisecond
	})
	held, release := heldLoop(s)
	conn, c := s.DialClient(harness.Native)
	for _, room := range []string{"to leave", "to delete", "to stay"} {
		require.NoError(t, c.JoinRoom(room))
	}
	hold(s, held)
	for s.Stats().Total.InboxLen < 8 {
		s.BroadcastAll([]byte("fill"))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.ErrorIs(t, c.JoinRoom("new"), ws.ErrBroadcastTimeout)
		c.LeaveRoom("to leave")
		s.DeleteRoom("to delete")
		assert.Equal(t, []string{"to stay"}, c.GetRooms())
		assert.Equal(t, 1, s.GetRoomCount())
		c.CloseWithCode(4321, "")
	}()
	harness.Receive(t, done, "a call hangs")
	release()
	for {
		f, err := harness.ReadFrame(conn.R)
		require.NoError(t, err)
		if f.Header.OpCode == gobwas.OpClose {
			require.EqualValues(t, 4321, gobwas.StatusCode(uint16(f.Payload[0])<<8|uint16(f.Payload[1])))
			break
		}
	}
}
