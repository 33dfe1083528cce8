package ws_test

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
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

// withRooms puts every client into the room of its query (?room=r).
func withRooms(r *http.Request) ([]ws.ClientOption, error) {
	if rooms := r.URL.Query()["room"]; rooms != nil {
		return []ws.ClientOption{ws.WithRooms(rooms...)}, nil
	}
	return nil, nil
}

// A client that has read its 101 gets all later messages, in rooms of WithRooms and in those that
// OnConnect joins.
func TestNothingIsMissedAfterThe101(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithAuthenticate(withRooms), ws.WithOnConnect(func(c *ws.Client) error {
			runtime.Gosched()
			return c.JoinRoom("by OnConnect")
		}))
		var all sync.WaitGroup
		var failed atomic.Int64
		for g := range 4 {
			all.Go(func() {
				for i := range 60 {
					room := fmt.Sprint("room", g, ".", i)
					c, err := s.TryDial(w, "room="+room)
					if err != nil || s.BroadcastToRoom(room, []byte("now"), nil) != nil || string(c.Next().Payload) != "now" ||
						len(s.GetRoomMembers("by OnConnect")) == 0 {
						failed.Add(1)
					}
				}
			})
		}
		all.Wait()
		require.Zero(t, failed.Load())
	})
}

// The messages of OnConnect follow the 101 in order; messages, and broadcasts of others, come after
// it has returned, however long it takes.
func TestOnConnectComesFirst(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		const sends = 100
		release := make(chan struct{})
		var returned atomic.Bool
		entered := make(chan *ws.Client, 1)
		s := harness.Start(t, mode, ws.WithHighWaterAge(time.Millisecond), ws.WithWriteTimeout(50*time.Millisecond),
			ws.WithOnSlow(func(*ws.Client, int) { t.Error("the client is called slow") }),
			ws.WithOnConnect(func(c *ws.Client) error {
				for i := range sends {
					assert.NoError(t, c.SendBytes([]byte(fmt.Sprint("welcome ", i))))
				}
				entered <- c
				<-release
				returned.Store(true)
				return c.SendBytes([]byte("last of the welcome"))
			}))
		require.NoError(t, s.Register("ask", func(c *ws.Client, msg *ws.Message) error {
			assert.True(t, returned.Load(), "a message is handled before OnConnect has returned")
			return c.SendBytes([]byte("answer"))
		}))
		c := s.DialTCP(w)
		c.WriteRaw(harness.UpgradeRequest("/ws", "") + harness.Frame(gobwas.OpText, harness.Request("ask", "1", "")))
		sc := harness.Receive(t, entered, "OnConnect is not called")
		require.False(t, sc.IsClosed())
		s.BroadcastAll([]byte("a broadcast"))
		time.AfterFunc(300*time.Millisecond, func() { close(release) })
		resp, body := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode, body)
		assert.True(t, returned.Load(), "the 101 came before OnConnect had returned")
		for i := range sends {
			c.Expect(fmt.Sprint("welcome ", i))
		}
		c.Expect("a broadcast", "last of the welcome", "answer")
	})
}

// An error closes with the code of a CloseError, and with 1008 otherwise, behind sent messages.
func TestOnConnectFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fn     func(*ws.Client) error
		code   int
		reason string
		event  string
	}{
		"close error": {func(*ws.Client) error { return &ws.CloseError{Code: 4001, Reason: "no"} }, 4001, "no", ""},
		"error":       {func(*ws.Client) error { return errors.New("secret") }, 1008, "", "secret"},
		"panic":       {func(*ws.Client) error { panic("secret") }, 1008, "", "secret"},
		"goexit":      {func(*ws.Client) error { runtime.Goexit(); return nil }, 1008, "", "Goexit"},
		"timeout": {func(c *ws.Client) error {
			<-c.Context().Done() // ends with the connection
			return nil
		}, 1008, "handshake timeout", ""},
	} {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				timeout := harness.Patience
				if name == "timeout" {
					timeout = 2 * time.Second // for the request, too, on a busy machine
				}
				s := harness.Start(t, ws.WithHandshakeTimeout(timeout),
					ws.WithOnConnect(func(c *ws.Client) error {
						_ = c.SendBytes([]byte("before"))
						return tc.fn(c)
					}))
				events := s.Events(ws.EventClientConnected, ws.EventError, ws.EventClientDisconnected)
				c := s.Dial(w)
				c.Expect("before")
				assert.Equal(t, tc.reason, c.ExpectClose(tc.code))
				c.Finish(tc.code)
				next := func(want ws.EventType) ws.Event {
					e := harness.Receive(t, events, "no %s", want)
					require.Equal(t, want, e.Type)
					return e
				}
				next(ws.EventClientConnected)
				if tc.event != "" {
					assert.ErrorContains(t, next(ws.EventError).Data.(error), tc.event)
				}
				assert.Equal(t, tc.code, next(ws.EventClientDisconnected).Data.(*ws.CloseError).Code)
			})
		})
	}
}

// A room of WithRooms that takes nobody closes the client.
func TestWithRoomsFails(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(withRooms), ws.WithMaxRoomsPerClient(1),
			ws.WithOnConnect(func(*ws.Client) error {
				t.Error("OnConnect is called for a client that is closed")
				return nil
			}))
		c := s.Dial(w, "room=a", "room=b")
		assert.Equal(t, strings.TrimPrefix(ws.ErrTooManyRooms.Error(), "ws: "), c.ExpectClose(1008))
		c.Finish(1008)
		harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 && s.GetClientCount() == 0 }, "it stays")
	})
}

// A client that hangs up while OnConnect runs ends, and Shutdown ends those that wait.
func TestOnConnectOfAClientThatGoes(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		entered := make(chan struct{}, 16)
		s := harness.Start(t, ws.WithWorkers(1), ws.WithOnConnect(func(c *ws.Client) error {
			entered <- struct{}{}
			<-c.Context().Done()
			return c.JoinRoom("r") // has no effect if the client has gone
		}))
		ends := s.Events(ws.EventClientDisconnected)
		c := s.DialTCP(w)
		c.WriteRaw(harness.UpgradeRequest("/ws", ""))
		harness.Receive(t, entered, "OnConnect is not called")
		c.Abort()
		harness.Receive(t, ends, "the client stays")
		assert.Zero(t, s.GetRoomCount())
		for range 4 { // one is called, the others wait for a worker
			s.DialTCP(w).WriteRaw(harness.UpgradeRequest("/ws", ""))
		}
		harness.Receive(t, entered, "OnConnect is not called")
		harness.Eventually(t, func() bool { return s.GetClientCount() == 4 }, "%d clients", s.GetClientCount())
	})
}

// The same over TLS, where the answer is sealed behind the handshake's last bytes.
func TestOnConnectOverTLS(t *testing.T) {
	harness.OnBothTLS(t, func(t *testing.T, w harness.Way, version uint16) {
		s := harness.StartTLS(t, nil, ws.WithOnConnect(func(c *ws.Client) error {
			<-time.After(20 * time.Millisecond)
			return c.SendBytes([]byte("welcome"))
		}))
		harness.RegisterGreetings(t, s.Manager)
		c := s.DialTLS(w, s.ClientConfig(version))
		c.Expect("welcome")
		c.Send(harness.Request("only", "1", ""))
		c.ExpectReply("1", 200, "")
	})
}
