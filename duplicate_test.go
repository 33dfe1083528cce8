package ws_test

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// dialInTime connects as a client whose ID another one has, and checks that it did not
// have to wait for a timeout of a minute.
func (s *server) dialInTime(w way, query string) (*client, *ws.Client) {
	s.t.Helper()
	began := time.Now()
	c := s.dial(w, query)
	assert.Less(s.t, time.Since(began), patience/2)
	sc, ok := s.GetClient("a")
	require.True(s.t, ok)
	return c, sc
}

// ReplaceOld closes the older connection, also if it hangs or its queue is full, and
// on a server that takes no more.
func TestReplaceOld(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, withDeepQueue, ws.WithAuthenticate(byQuery), ws.WithDuplicateID(ws.ReplaceOld), ws.WithMaxConnections(1))
		registerGreetings(t, s.Manager)
		p := followEvents(s.Manager)
		ends := s.events(ws.EventClientDisconnected)
		first, firstClient := s.dialClient(w, "id=a")
		require.NoError(t, firstClient.JoinRoom("r"))
		replaced := func(sc *ws.Client) {
			t.Helper()
			e := receive(t, ends, "no disconnect")
			require.Same(t, sc, e.Client)
			assert.Equal(t, ws.CloseReplaced, e.Data.(*ws.CloseError).Code)
			assert.True(t, sc.IsClosed())
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			f, err := readFrame(first.r)
			assert.NoError(t, err)
			code, _ := gws.ParseCloseFrameData(f.Payload)
			assert.EqualValues(t, ws.CloseReplaced, code)
			_, _ = io.WriteString(first, frame(gws.OpClose, string(f.Payload)))
			_, err = io.Copy(io.Discard, first.r)
			assert.NoError(t, err)
		}()
		_, hangs := s.dialInTime(w, "id=a")
		require.NotSame(t, firstClient, hangs)
		replaced(firstClient)
		receive(t, answered, "the first client is not closed")

		third, full := s.dialInTime(w, "id=a")
		replaced(hangs)
		third.send(request("only", "1", ""))
		third.expectReply("1", 200, "")
		s.stall(full)
		last, _ := s.dialInTime(w, "id=a")
		replaced(full)
		last.send(request("only", "1", ""))
		last.expectReply("1", 200, "")
		eventually(t, func() bool { c, m := p.count(); return c == 1 && m == 0 }, "%v", p)
		assert.Empty(t, p.firstWrong())
	})
}

// RefuseNew refuses a client whose ID is in use, but not because of a connection that
// is closing.
func TestRefuseNew(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, ws.WithAuthenticate(byQuery))
		_, old := s.dialClient(w, "id=a")
		_, err := s.tryDial(w, "id=a")
		require.ErrorContains(t, err, "409")
		require.False(t, old.IsClosed())
		old.Close() // it never answers
		_, next := s.dialInTime(w, "id=a")
		require.NotSame(t, old, next)
	})
}

// A client that has closed, and comes back while a handler of it is at work, does not
// wait for that.
func TestReconnectWhileTheHandlerRuns(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithAuthenticate(byQuery))
		p := followEvents(s.Manager)
		entered, release := make(chan struct{}, 1), make(chan struct{})
		require.NoError(t, s.Register("slow", func(*ws.Client, *ws.Message) error {
			entered <- struct{}{}
			<-release
			return nil
		}))
		resume := sync.OnceFunc(func() { close(release) })
		t.Cleanup(resume)
		c, _ := s.dialClient(w, "id=a")
		c.send(request("slow", "1", ""))
		receive(t, entered, "no handler")
		c.sendClose(1000, "")
		c2, next := s.dialReconnecting(w)
		require.NoError(t, next.JoinRoom("r"))
		resume()
		eventually(t, func() bool { c, m := p.count(); return c == 1 && m == 1 }, "%v", p)
		assert.Empty(t, p.firstWrong())
		c2.abort()
		eventually(t, func() bool { c, m := p.count(); return c == 0 && m == 0 }, "%v", p)
		assert.Empty(t, p.firstWrong())
	})
}

// dialReconnecting connects as client a, again while the server has not read the close of
// the connection before.
func (s *server) dialReconnecting(w way) (c *client, sc *ws.Client) {
	s.t.Helper()
	eventually(s.t, func() bool {
		var err error
		c, err = s.tryDial(w, "id=a")
		return err == nil
	}, "the ID stays taken")
	sc, ok := s.GetClient("a")
	require.True(s.t, ok)
	return c, sc
}

// Many come with one ID at the same time: one is left, and the events are in order.
func TestReplaceOldStorm(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, ws.WithAuthenticate(byQuery), ws.WithDuplicateID(ws.ReplaceOld), ws.WithLoops(4))
		p := followEvents(s.Manager)
		var all sync.WaitGroup
		var failed atomic.Int64
		for range 8 {
			all.Go(func() {
				for range 10 {
					c, err := s.tryDial(w, "id=a")
					if err != nil {
						failed.Add(1)
						return
					}
					go func() { // answers the close, ends with the connection
						f, err := readFrame(c.r)
						if err == nil {
							_, _ = io.WriteString(c, frame(gws.OpClose, string(f.Payload)))
						}
					}()
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load())
		eventually(t, func() bool { c, _ := p.count(); return c == 1 && s.GetClientCount() == 1 }, "%v", p)
		assert.Empty(t, p.firstWrong())
	})
}

// Abort resets the connection at once, though its queue is full, and whatever its
// state.
func TestAbort(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		for name, before := range map[string]func(*server, *ws.Client){
			"open":    func(*server, *ws.Client) {},
			"full":    func(s *server, c *ws.Client) { s.stall(c) },
			"closing": func(_ *server, c *ws.Client) { c.CloseWithCode(4000, "") },
		} {
			t.Run(name, func(t *testing.T) {
				s := start(t, withDeepQueue)
				ends := s.events(ws.EventClientDisconnected)
				c, sc := s.dialClient(w)
				before(s, sc)
				sc.Abort()
				assert.True(t, sc.IsClosed())
				require.ErrorIs(t, sc.SendBytes(nil), ws.ErrConnectionClosed)
				end := receive(t, ends, "it does not end").Data.(*ws.CloseError)
				if name != "closing" { // whose close frame may be written
					assert.Equal(t, 1006, end.Code)
					require.Error(t, end.Err)
				}
				_, err := io.Copy(io.Discard, c.r)
				require.Error(t, err, "no reset")
				sc.Abort() // no effect
			})
		}
	})
}
