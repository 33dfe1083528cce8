package ws_test

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
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

// A client that is refused for its ID takes no place from another, not even for
// a moment.
func TestRefusedClientsTakeNoPlace(t *testing.T) {
	m, err := ws.NewManager()
	require.NoError(t, err)
	client := func(id string) *ws.Client {
		c := ws.NewTestClient(m)
		c.ID = id
		return c
	}
	const workers, rounds = 1, 100_000
	r := ws.NewRegistry()
	require.NoError(t, r.Admit(client("taken"), workers+1))
	var working, refusing sync.WaitGroup
	var done atomic.Bool
	for range 3 {
		refusing.Go(func() {
			again := client("taken")
			for !done.Load() {
				err := r.Admit(again, workers+1)
				if !assert.Error(t, err) {
					return
				}
			}
		})
	}
	for i := range workers {
		working.Go(func() {
			c := client(fmt.Sprint("worker ", i))
			for range rounds {
				if !assert.NoError(t, r.Admit(c, workers+1), "there is a place for each") {
					return
				}
				r.Remove(c)
			}
		})
	}
	working.Wait()
	done.Store(true)
	refusing.Wait()
	assert.ErrorIs(t, r.Admit(client("taken"), workers+1), ws.ErrClientIDExists)
	require.NoError(t, r.Admit(client("last"), workers+1))
	assert.ErrorIs(t, r.Admit(client("one more"), workers+1), ws.ErrTooManyConnections)
}

// The end of one device takes no longer because its user has many others: other users need the lock
// under which it happens, too.
func TestDevicesOfAUserAreRemovedInConstantTime(t *testing.T) {
	const few, many = 1_000, 300_000
	quickest := func(devices int) time.Duration {
		r := ws.NewRegistry()
		clients := make([]*ws.Client, devices)
		for i := range clients {
			clients[i] = &ws.Client{UserID: 1}
			r.Opened(clients[i])
		}
		rand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })
		best := time.Duration(1 << 62)
		for batch := range slices.Chunk(clients[:few/2], few/10) {
			start := time.Now()
			for _, c := range batch {
				r.RemoveDevice(c)
			}
			best = min(best, time.Since(start))
		}
		require.Len(t, r.Devices(1), devices-few/2)
		return best
	}
	ofFew, ofMany := quickest(few), quickest(many)
	t.Logf("100 removals: %v of %d devices, %v of %d", ofFew, few, ofMany, many)
	assert.Less(t, ofMany, 100*ofFew, "100 removals of %d devices", many)
}

// TestDevicesAgainstAMap runs random operations against a map.
func TestDevicesAgainstAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	r := ws.NewRegistry()
	model := map[int64][]*ws.Client{}
	for round := range 12 {
		growing := round%2 == 0
		for range 3_000 {
			user := int64(rng.IntN(6)) * 64 // one shard of the registry has them all
			devices := model[user]
			if (rng.IntN(10) < 7) == growing {
				c := &ws.Client{UserID: user}
				r.Opened(c)
				if user != 0 {
					model[user] = append(devices, c)
				}
			} else if len(devices) > 0 {
				i := rng.IntN(len(devices))
				r.RemoveDevice(devices[i])
				model[user] = slices.Delete(devices, i, i+1)
			}
			r.RemoveDevice(&ws.Client{UserID: user}) // another client takes nothing out
		}
		for user, devices := range model {
			require.Len(t, r.Devices(user), len(devices))
			require.True(t, maps.Equal(pointers(devices), pointers(r.Devices(user))))
		}
	}
	for user, devices := range model {
		for _, c := range devices {
			r.RemoveDevice(c)
			r.RemoveDevice(c) // again
		}
		require.Empty(t, r.Devices(user))
	}
}

// pointers makes clients comparable by identity.
func pointers(clients []*ws.Client) map[*ws.Client]bool {
	m := make(map[*ws.Client]bool, len(clients))
	for _, c := range clients {
		m[c] = true
	}
	return m
}

// dialInTime connects as a client whose ID another one has, and checks that it did not
// have to wait for a timeout of a minute.
func dialInTime(s *harness.Server, w harness.Way, query string) (*harness.Client, *ws.Client) {
	s.T.Helper()
	began := time.Now()
	c := s.Dial(w, query)
	assert.Less(s.T, time.Since(began), harness.Patience/2)
	sc, ok := s.GetClient("a")
	require.True(s.T, ok)
	return c, sc
}

// ReplaceOld closes the older connection, also if it hangs or its queue is full, and
// on a server that takes no more.
func TestReplaceOld(t *testing.T) {
	t.Parallel()
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, harness.WithDeepQueue, ws.WithAuthenticate(harness.ByQuery),
			ws.WithDuplicateID(ws.ReplaceOld), ws.WithMaxConnections(1))
		harness.RegisterGreetings(t, s.Manager)
		p := harness.FollowEvents(s.Manager)
		ends := s.Events(ws.EventClientDisconnected)
		first, firstClient := s.DialClient(w, "id=a")
		require.NoError(t, firstClient.JoinRoom("r"))
		replaced := func(sc *ws.Client) {
			t.Helper()
			e := harness.Receive(t, ends, "no disconnect")
			require.Same(t, sc, e.Client)
			assert.Equal(t, ws.CloseReplaced, e.Data.(*ws.CloseError).Code)
			assert.True(t, sc.IsClosed())
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			f, err := harness.ReadFrame(first.R)
			assert.NoError(t, err)
			code, _ := gobwas.ParseCloseFrameData(f.Payload)
			assert.EqualValues(t, ws.CloseReplaced, code)
			_, _ = io.WriteString(first, harness.Frame(gobwas.OpClose, string(f.Payload)))
			_, err = io.Copy(io.Discard, first.R)
			assert.NoError(t, err)
		}()
		_, hangs := dialInTime(s, w, "id=a")
		require.NotSame(t, firstClient, hangs)
		replaced(firstClient)
		harness.Receive(t, answered, "the first client is not closed")

		third, full := dialInTime(s, w, "id=a")
		replaced(hangs)
		third.Send(harness.Request("only", "1", ""))
		third.ExpectReply("1", 200, "")
		s.Stall(full)
		last, _ := dialInTime(s, w, "id=a")
		replaced(full)
		last.Send(harness.Request("only", "1", ""))
		last.ExpectReply("1", 200, "")
		harness.Eventually(t, func() bool { c, m := p.Count(); return c == 1 && m == 0 }, "%v", p)
		assert.Empty(t, p.FirstWrong())
	})
}

// RefuseNew refuses a client whose ID is in use, but not because of a connection that
// is closing.
func TestRefuseNew(t *testing.T) {
	t.Parallel()
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithAuthenticate(harness.ByQuery))
		_, old := s.DialClient(w, "id=a")
		_, err := s.TryDial(w, "id=a")
		require.ErrorContains(t, err, "409")
		require.False(t, old.IsClosed())
		old.Close() // it never answers
		_, next := dialInTime(s, w, "id=a")
		require.NotSame(t, old, next)
	})
}

// A client that has closed, and comes back while a handler of it is at work, does not
// wait for that.
func TestReconnectWhileTheHandlerRuns(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
		p := harness.FollowEvents(s.Manager)
		entered, release := make(chan struct{}, 1), make(chan struct{})
		require.NoError(t, s.Register("slow", func(*ws.Client, *ws.Message) error {
			entered <- struct{}{}
			<-release
			return nil
		}))
		resume := sync.OnceFunc(func() { close(release) })
		t.Cleanup(resume)
		c, _ := s.DialClient(w, "id=a")
		c.Send(harness.Request("slow", "1", ""))
		harness.Receive(t, entered, "no handler")
		c.SendClose(1000, "")
		c2, next := dialReconnecting(s, w)
		require.NoError(t, next.JoinRoom("r"))
		resume()
		harness.Eventually(t, func() bool { c, m := p.Count(); return c == 1 && m == 1 }, "%v", p)
		assert.Empty(t, p.FirstWrong())
		c2.Abort()
		harness.Eventually(t, func() bool { c, m := p.Count(); return c == 0 && m == 0 }, "%v", p)
		assert.Empty(t, p.FirstWrong())
	})
}

// dialReconnecting connects as client a, again while the server has not read the close of
// the connection before.
func dialReconnecting(s *harness.Server, w harness.Way) (c *harness.Client, sc *ws.Client) {
	s.T.Helper()
	harness.Eventually(s.T, func() bool {
		var err error
		c, err = s.TryDial(w, "id=a")
		return err == nil
	}, "the ID stays taken")
	sc, ok := s.GetClient("a")
	require.True(s.T, ok)
	return c, sc
}

// Many come with one ID at the same time: one is left, and the events are in order.
func TestReplaceOldStorm(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithAuthenticate(harness.ByQuery), ws.WithDuplicateID(ws.ReplaceOld), ws.WithLoops(4))
		p := harness.FollowEvents(s.Manager)
		var all sync.WaitGroup
		var failed atomic.Int64
		for range 8 {
			all.Go(func() {
				for range 10 {
					c, err := s.TryDial(w, "id=a")
					if err != nil {
						failed.Add(1)
						return
					}
					go func() { // answers the close, ends with the connection
						f, err := harness.ReadFrame(c.R)
						if err == nil {
							_, _ = io.WriteString(c, harness.Frame(gobwas.OpClose, string(f.Payload)))
						}
					}()
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load())
		harness.Eventually(t, func() bool { c, _ := p.Count(); return c == 1 && s.GetClientCount() == 1 }, "%v", p)
		assert.Empty(t, p.FirstWrong())
	})
}

// Abort resets the connection at once, though its queue is full, and whatever its
// state.
func TestAbort(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for name, before := range map[string]func(*harness.Server, *ws.Client){
			"open":    func(*harness.Server, *ws.Client) {},
			"full":    func(s *harness.Server, c *ws.Client) { s.Stall(c) },
			"closing": func(_ *harness.Server, c *ws.Client) { c.CloseWithCode(4000, "") },
		} {
			t.Run(name, func(t *testing.T) {
				s := harness.Start(t, harness.WithDeepQueue)
				ends := s.Events(ws.EventClientDisconnected)
				c, sc := s.DialClient(w)
				before(s, sc)
				sc.Abort()
				assert.True(t, sc.IsClosed())
				require.ErrorIs(t, sc.SendBytes(nil), ws.ErrConnectionClosed)
				end := harness.Receive(t, ends, "it does not end").Data.(*ws.CloseError)
				if name != "closing" { // whose close frame may be written
					assert.Equal(t, 1006, end.Code)
					require.Error(t, end.Err)
				}
				_, err := io.Copy(io.Discard, c.R)
				require.Error(t, err, "no reset")
				sc.Abort() // no effect
			})
		}
	})
}
