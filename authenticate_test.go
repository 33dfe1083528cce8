package ws_test

import (
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// tryUpgrade sends an upgrade request and does not wait for the answer.
func (s *server) tryUpgrade(w way, path string) *client {
	c := s.dialTCP(w)
	c.raw(upgradeRequest(path, ""))
	return c
}

// An Authenticate that ignores its context has its client refused at the
// handshake's timeout, and takes no place from others.
func TestStuckAuthenticate(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		const workers, stuck = 4, 6
		gate := make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		defer release()
		s := start(t, func(c *ws.Config) { c.Workers, c.HandshakeTimeout = workers, 2*time.Second },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.RawQuery == "stuck" {
					<-gate
				}
				return nil, nil
			}))
		var clients []*client
		for range stuck {
			clients = append(clients, s.tryUpgrade(w, "/ws?stuck"))
		}
		for _, c := range clients {
			resp, _ := c.response()
			assert.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
		}
		eventually(t, func() bool { return s.Stats().Stuck >= workers }, "stuck calls: %d", s.Stats().Stuck)
		s.dial(w)
		release()
		eventually(t, func() bool { return s.Stats().Stuck == 0 }, "stuck calls: %d", s.Stats().Stuck)
		s.dial(w)
		eventually(t, func() bool { return s.GetClientCount() == 2 }, "%d clients", s.GetClientCount())
	})
}

// Authenticate is not called for clients that have hung up while they waited in
// line.
func TestAuthenticateSkipsTheDead(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		entered, gate := make(chan struct{}, 1), make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		defer release()
		var calls atomic.Int64
		s := start(t, func(c *ws.Config) { c.Workers, c.HandshakeTimeout = 1, patience },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				calls.Add(1)
				if r.URL.RawQuery == "first" {
					entered <- struct{}{}
					<-gate
				}
				return nil, nil
			}))
		s.tryUpgrade(w, "/ws?first")
		receive(t, entered, "Authenticate does not run")
		const dead = 50
		var clients []*client
		for range dead {
			clients = append(clients, s.tryUpgrade(w, "/ws"))
		}
		eventually(t, func() bool { return w == overNet || s.Stats().Total.Connections == dead+1 }, "not accepted")
		for _, c := range clients {
			c.abort()
		}
		for range clients {
			if w == overNet {
				require.Error(t, receive(t, s.upgrades, "HandleUpgrade does not return"))
			}
		}
		eventually(t, func() bool { return s.Stats().Total.Connections <= 1 }, "the dead stay")
		release()
		s.dial(w)
		assert.EqualValues(t, 2, calls.Load(), "calls for the first and the last")
	})
}

// The context of Authenticate ends when the client hangs up, and at Shutdown.
func TestAuthenticateContext(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		entered, ended := make(chan struct{}, 1), make(chan struct{}, 1)
		s := start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			entered <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
			return nil, r.Context().Err()
		}), func(c *ws.Config) { c.HandshakeTimeout = time.Hour })
		c := s.tryUpgrade(w, "/ws")
		receive(t, entered, "Authenticate does not run")
		c.abort()
		receive(t, ended, "the context does not end when the client hangs up")
		c = s.tryUpgrade(w, "/ws")
		receive(t, entered, "Authenticate does not run")
		go func() { _ = s.Shutdown(t.Context()) }()
		receive(t, ended, "the context does not end at Shutdown")
		resp, _ := c.response()
		assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		s.shutdown()
	})
}

// The time for a handshake begins when the connection comes, not when
// Authenticate is called.
func TestAuthenticateDeadlineCountsFromAccept(t *testing.T) {
	const timeout, late = 10 * time.Second, 3 * time.Second
	left := make(chan time.Duration, 1)
	s := start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		deadline, _ := r.Context().Deadline()
		left <- time.Until(deadline)
		return nil, nil
	}), func(c *ws.Config) { c.HandshakeTimeout = timeout })
	c := s.dialTCP(native)
	head := upgradeRequest("/ws", "")
	c.raw(head[:20])
	time.Sleep(late) //nolint:forbidigo // the time that is to be counted
	c.raw(head[20:])
	assert.Less(t, receive(t, left, "Authenticate does not run"), timeout-late+time.Second)
}

// An Authenticate that ends its goroutine refuses its own client alone.
func TestAuthenticateEndsItsGoroutine(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, func(c *ws.Config) { c.Workers = 1 },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.RawQuery == "exit" {
					runtime.Goexit()
				}
				return nil, nil
			}))
		for range 3 {
			resp, _ := s.tryUpgrade(w, "/ws?exit").response()
			assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		}
		s.dial(w)
	})
}
