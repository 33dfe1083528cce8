package ws_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Every client gets its queued messages, then 1001.
func TestShutdown(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		var conns []*harness.Client
		for range 20 {
			c, sc := s.DialClient(w)
			require.NoError(t, sc.JoinRoom("r"))
			conns = append(conns, c)
		}
		for i := range 50 {
			require.NoError(t, s.BroadcastToRoom("r", fmt.Append(nil, i), nil))
		}
		results := make(chan error, 3)
		for range 3 { // all wait for the same end
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
				defer cancel()
				results <- s.Shutdown(ctx)
			}()
		}
		for _, c := range conns {
			for i := range 50 {
				c.Expect(fmt.Sprint(i))
			}
			c.ExpectClose(1001)
			c.Finish(1001)
		}
		for range 3 {
			require.NoError(t, harness.Receive(t, results, "Shutdown did not return"))
		}
		require.NoError(t, harness.Receive(t, s.Ran, "Run did not return"))
		s.Ran <- nil // for the cleanup
		assert.Zero(t, s.GetClientCount())
		require.NoError(t, s.Shutdown(context.Background()), "again")
		require.NoError(t, s.Run(), "a manager that was shut down")

		// Everything may still be called.
		s.BroadcastAll([]byte("x"))
		s.BroadcastToUser(1, []byte("x"))
		require.ErrorIs(t, s.BroadcastToRoom("r", []byte("x"), nil), ws.ErrManagerStopped)
		s.DeleteRoom("r")
		_, err := s.CreateRoom("new", nil)
		require.ErrorIs(t, err, ws.ErrManagerStopped)
		_ = s.Stats()
	})
}

// A client that is behind gets all of its queue before the close frame.
func TestShutdownFlushesQueues(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, harness.WithDeepQueue)
		c, sc := s.DialClient(w)
		s.Stall(sc)
		require.NoError(t, sc.SendBytes([]byte("last")))
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Stop()
		}()
		harness.Eventually(t, sc.IsClosed, "not closing")
		c.Expect(harness.BigMessage, "last")
		c.ExpectClose(1001)
		c.Finish(1001)
		harness.Receive(t, done, "Shutdown did not return")
	})
}

// A client that says nothing holds up Shutdown no longer than its context.
func TestShutdownOfASilentClient(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		ends := s.Events(ws.EventClientDisconnected)
		c := s.Dial(w)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
		require.NoError(t, harness.Receive(t, s.Ran, "Run did not return"))
		s.Ran <- nil
		c.ExpectClose(1001)
		assert.Equal(t, 1001, harness.Receive(t, ends, "no disconnect").Data.(*ws.CloseError).Code)
		require.NoError(t, s.Shutdown(context.Background()))
		assert.Zero(t, s.GetClientCount())
	})
}

// Shutdown waits for handlers, and a connect's disconnect is never lost, even
// if Shutdown gave up waiting.
func TestShutdownWaitsForHandlers(t *testing.T) {
	s := harness.Start(t)
	var connected, disconnected atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { connected.Add(1) })
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnected.Add(1) })
	entered, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	var after atomic.Value
	require.NoError(t, s.Register("block", func(c *ws.Client, _ *ws.Message) error {
		close(entered)
		<-release
		after.Store(c.SendBytes([]byte("late")))
		return nil
	}))
	c := s.Dial(harness.Native)
	c.Send(harness.Request("block", "1", ""))
	harness.Receive(t, entered, "not called")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
	release <- struct{}{}
	require.NoError(t, s.Shutdown(context.Background()))
	err, _ := after.Load().(error)
	require.ErrorIs(t, err, ws.ErrConnectionClosed)
	assert.EqualValues(t, 1, connected.Load())
	assert.EqualValues(t, 1, disconnected.Load(), "the disconnect was dropped")
}

func TestShutdownBeforeRun(t *testing.T) {
	m, err := ws.NewManager(harness.Options()...)
	require.NoError(t, err)
	m.Subscribe(ws.EventError, func(ws.Event) {})
	require.NoError(t, m.Shutdown(context.Background()))
	require.NoError(t, m.Run())
	require.NoError(t, m.Shutdown(context.Background()))
}

// Shutdown may come at any moment of the start.
func TestShutdownDuringStart(t *testing.T) {
	for i := range 30 {
		m, err := ws.NewManager(append(harness.Options(), func(c *ws.Config) {
			if i%2 == 0 {
				c.ListenAddr = ""
			}
		})...)
		require.NoError(t, err)
		ran := make(chan error, 1)
		go func() { ran <- m.Run() }()
		for range i / 2 * 1000 {
			_ = m.GetClientCount()
		}
		harness.Shutdown(t, m)
		require.NoError(t, harness.Receive(t, ran, "Run did not return"))
	}
}

func TestRunTwice(t *testing.T) {
	s := harness.Start(t)
	require.Error(t, s.Run())
	_, err := s.TryDial(harness.Native)
	require.NoError(t, err, "the first goes on")
}

// A port in use: Run says so, and names the address.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	other := harness.Start(t)
	for name, addr := range map[string]string{"net": l.Addr().String(), "another manager": other.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			m := harness.NewManager(t, ws.WithListenAddr("tcp://"+addr))
			err := m.Run()
			require.Error(t, err)
			assert.ErrorContains(t, err, addr)
			require.ErrorContains(t, err, "in use")
		})
	}
}

// A manager with many loops listens on one port.
func TestAddr(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(4))
	addr, ok := s.Addr().(*net.TCPAddr)
	require.True(t, ok)
	assert.NotZero(t, addr.Port)
	assert.True(t, addr.IP.IsLoopback())
	for range 20 {
		s.Dial(harness.Native)
	}
	assert.Equal(t, 20, s.GetClientCount())
}

func TestRangeClients(t *testing.T) {
	s := harness.Start(t)
	want := map[string]bool{}
	for i := range 10 {
		_, sc := s.DialClient([]harness.Way{harness.Native, harness.NetHTTP}[i%2])
		want[sc.ID] = true
	}
	got := map[string]bool{}
	s.RangeClients(func(c *ws.Client) bool {
		assert.False(t, got[c.ID], "twice")
		got[c.ID] = true
		_, ok := s.GetClient(c.ID) // no lock is held
		return assert.True(t, ok)
	})
	assert.Equal(t, want, got)
	calls := 0
	s.RangeClients(func(*ws.Client) bool { calls++; return calls < 3 })
	assert.Equal(t, 3, calls)
}

// Both ways give the same Client, at the same time.
func TestBothWaysAtOnce(t *testing.T) {
	s := harness.Start(t)
	a, aClient := s.DialClient(harness.Native)
	b, bClient := s.DialClient(harness.NetHTTP)
	require.NoError(t, aClient.JoinRoom("r"))
	require.NoError(t, bClient.JoinRoom("r"))
	require.NoError(t, s.BroadcastToRoom("r", []byte("both"), nil))
	a.Expect("both")
	b.Expect("both")
}

// Messages that wait in a mailbox when Shutdown comes are all handled, and the disconnect comes
// behind it.
func TestShutdownHandlesWhatWasReceived(t *testing.T) {
	const messages = 60 // several turns of a worker
	s := harness.Start(t)
	var handled, disconnected atomic.Int64
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnected.Store(handled.Load()) })
	entered, release := make(chan struct{}, messages), make(chan struct{})
	require.NoError(t, s.Register("wait", func(*ws.Client, *ws.Message) error {
		entered <- struct{}{}
		<-release
		handled.Add(1)
		return nil
	}))
	c := s.Dial(harness.Native)
	for range messages {
		c.Send(harness.Request("wait", "1", ""))
	}
	harness.Receive(t, entered, "not called")
	harness.Eventually(t, func() bool { return s.Stats().Total.MessagesIn == messages }, "not received")
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	c.ExpectClose(1001)
	c.Finish(1001)
	require.NoError(t, harness.Receive(t, s.Ran, "Run did not return"))
	s.Ran <- nil
	harness.Eventually(t, func() bool { return ws.WorkersClosed(s.Manager) }, "the workers still take messages")
	close(release)
	require.NoError(t, harness.Receive(t, stopped, "Shutdown did not return"))
	assert.EqualValues(t, messages, handled.Load())
	assert.EqualValues(t, messages, disconnected.Load(), "messages handled before the disconnect")
}
