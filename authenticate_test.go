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
	"github.com/qi-realtime/ws/internal/harness"
)

// tryUpgrade sends an upgrade request and does not wait for the answer.
func tryUpgrade(s *harness.Server, w harness.Way, path string) *harness.Client {
	c := s.DialTCP(w)
	c.WriteRaw(harness.UpgradeRequest(path, ""))
	return c
}

// An Authenticate that ignores its context has its client refused at the
// handshake's timeout, and takes no place from others.
func TestStuckAuthenticate(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const workers, stuck = 4, 6
		gate := make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		defer release()
		s := harness.Start(t, func(c *ws.Config) { c.Workers, c.HandshakeTimeout = workers, 5*time.Second },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.RawQuery == "stuck" {
					<-gate
				}
				return nil, nil
			}))
		var clients []*harness.Client
		for range stuck {
			clients = append(clients, tryUpgrade(s, w, "/ws?stuck"))
		}
		for _, c := range clients {
			resp, _ := c.ReadResponse()
			assert.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
		}
		harness.Eventually(t, func() bool { return s.Stats().Stuck >= workers }, "stuck calls: %d", s.Stats().Stuck)
		s.Dial(w)
		release()
		harness.Eventually(t, func() bool { return s.Stats().Stuck == 0 }, "stuck calls: %d", s.Stats().Stuck)
		s.Dial(w)
		harness.Eventually(t, func() bool { return s.GetClientCount() == 2 }, "%d clients", s.GetClientCount())
	})
}

// Authenticate is not called for clients that have hung up while they waited in
// line.
func TestAuthenticateSkipsTheDead(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		entered, gate := make(chan struct{}, 1), make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		defer release()
		var calls atomic.Int64
		s := harness.Start(t, func(c *ws.Config) { c.Workers, c.HandshakeTimeout = 1, harness.Patience },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				calls.Add(1)
				if r.URL.RawQuery == "first" {
					entered <- struct{}{}
					<-gate
				}
				return nil, nil
			}))
		tryUpgrade(s, w, "/ws?first")
		harness.Receive(t, entered, "Authenticate does not run")
		const dead = 50
		var clients []*harness.Client
		for range dead {
			clients = append(clients, tryUpgrade(s, w, "/ws"))
		}
		harness.Eventually(t, func() bool { return w == harness.NetHTTP || s.Stats().Total.Connections == dead+1 },
			"not accepted")
		for _, c := range clients {
			c.Abort()
		}
		for range clients {
			if w == harness.NetHTTP {
				require.Error(t, harness.Receive(t, s.Upgrades, "HandleUpgrade does not return"))
			}
		}
		harness.Eventually(t, func() bool { return s.Stats().Total.Connections <= 1 }, "the dead stay")
		release()
		s.Dial(w)
		assert.EqualValues(t, 2, calls.Load(), "calls for the first and the last")
	})
}

// The context of Authenticate ends when the client hangs up, and at Shutdown.
func TestAuthenticateContext(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		entered, ended := make(chan struct{}, 1), make(chan struct{}, 1)
		s := harness.Start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			entered <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
			return nil, r.Context().Err()
		}), func(c *ws.Config) { c.HandshakeTimeout = time.Hour })
		c := tryUpgrade(s, w, "/ws")
		harness.Receive(t, entered, "Authenticate does not run")
		c.Abort()
		harness.Receive(t, ended, "the context does not end when the client hangs up")
		c = tryUpgrade(s, w, "/ws")
		harness.Receive(t, entered, "Authenticate does not run")
		go func() { _ = s.Shutdown(t.Context()) }()
		harness.Receive(t, ended, "the context does not end at Shutdown")
		resp, _ := c.ReadResponse()
		assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		s.Stop()
	})
}

// The time for a handshake begins when the connection comes, not when
// Authenticate is called.
func TestAuthenticateDeadlineCountsFromAccept(t *testing.T) {
	t.Parallel()
	const timeout, late = 10 * time.Second, 3 * time.Second
	left := make(chan time.Duration, 1)
	s := harness.Start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
		deadline, _ := r.Context().Deadline()
		left <- time.Until(deadline)
		return nil, nil
	}), func(c *ws.Config) { c.HandshakeTimeout = timeout })
	c := s.DialTCP(harness.Native)
	head := harness.UpgradeRequest("/ws", "")
	c.WriteRaw(head[:20])
	harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 1 }, "not accepted")
	time.Sleep(late) //nolint:forbidigo // the time that is to be counted
	c.WriteRaw(head[20:])
	assert.Less(t, harness.Receive(t, left, "Authenticate does not run"), timeout-late+time.Second)
}

// An Authenticate that ends its goroutine refuses its own client alone.
func TestAuthenticateEndsItsGoroutine(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, func(c *ws.Config) { c.Workers = 1 },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.RawQuery == "exit" {
					runtime.Goexit()
				}
				return nil, nil
			}))
		for range 3 {
			resp, _ := tryUpgrade(s, w, "/ws?exit").ReadResponse()
			assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		}
		s.Dial(w)
	})
}
