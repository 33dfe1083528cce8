//go:build linux

package integration_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/leak"
)

// unbounded lifts the bounds of the outbound queues, for scenarios in
// which a publisher may be far ahead of the clients and nothing may be lost.
func unbounded(c *ws.Config) {
	c.MessageQueueSize = 1 << 20
	c.QueueBytes = 1 << 38
}

// newManager returns a manager for a scenario, that does not run yet.
func newManager(t testing.TB, opts ...ws.Option) *ws.Manager {
	t.Helper()
	defaults := func(c *ws.Config) {
		c.ListenAddr = "tcp://127.0.0.1:0"
		c.Loops = 2
		c.MaxConnections = 20_000
		c.HeartbeatInterval = 1000 * time.Hour // so that pings come only where a scenario wants them
		c.HeartbeatTimeout = 2000 * time.Hour
		c.CloseTimeout = 20 * time.Second
		c.WriteTimeout = 10 * harness.Patience
		c.Broadcast.Timeout = harness.Patience
		c.Logger = slog.New(slog.DiscardHandler)
		c.Authenticate = authenticate
	}
	m, err := ws.NewManager(append([]ws.Option{defaults}, opts...)...)
	require.NoError(t, err)
	return m
}

// authenticate takes the user's number from the query: /ws?user=7.
func authenticate(r *http.Request) ([]ws.ClientOption, error) {
	var user int64
	if q := r.URL.RawQuery; q != "" {
		if _, err := fmt.Sscanf(q, "user=%d&id=%d", &user, new(int)); err != nil {
			return nil, err
		}
	}
	return []ws.ClientOption{
		ws.WithUserID(user), ws.WithMetadata("query", strings.Clone(r.URL.RawQuery)),
	}, nil
}

// startScenario runs a manager until the test ends, and then checks that
// neither goroutines nor descriptors are left.
func startScenario(t testing.TB, opts ...ws.Option) *harness.Server {
	t.Helper()
	leavesNothing(t)
	return harness.Run(t, newManager(t, opts...))
}

// endsInTime runs fn on a goroutine of its own and fails if it hangs.
func endsInTime(t testing.TB, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(4 * harness.Patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s hangs\n%s", what, stacks[:runtime.Stack(stacks, true)])
	}
}

// leavesNothing checks at the end of the test, after all other
// cleanups, that no goroutine and no descriptor is left of it.
func leavesNothing(t testing.TB) {
	t.Helper()
	raiseLimit(t)
	goroutines, descriptors := len(leak.Goroutines()), leak.Descriptors()
	t.Cleanup(func() {
		if t.Failed() {
			return // leftovers of a failed test are no news
		}
		harness.Eventually(t, func() bool {
			return len(leak.Goroutines()) <= goroutines && leak.Descriptors() <= descriptors
		}, "goroutines or descriptors left: %d and %d before\n%s", goroutines, descriptors,
			lazyText(func() string {
				return fmt.Sprintf("%d descriptors\n%s", leak.Descriptors(), strings.Join(leak.Goroutines(), "\n\n"))
			}))
	})
}

// lazyText is a text that is made when it is printed.
type lazyText func() string

func (s lazyText) String() string { return s() }

// raiseLimit raises the limit of descriptors to the hard limit.
func raiseLimit(t testing.TB) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	}
}

// connections returns how many of n in-process connections the limit of
// descriptors allows: each takes two.
func connections(t testing.TB, n int) int {
	t.Helper()
	raiseLimit(t)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	allowed := int(min(limit.Cur, 1<<20))/2 - 1000
	if allowed < n {
		t.Logf("%d of %d connections: the limit is %d descriptors", allowed, n, limit.Cur)
	}
	return min(n, allowed)
}

// serverSide returns the server's side of the connection that was dialed with
// that query.
func serverSide(s *harness.Server, query string) *ws.Client {
	s.T.Helper()
	var found *ws.Client
	s.RangeClients(func(c *ws.Client) bool {
		if q, _ := c.GetMetadata("query"); q == query {
			found = c
		}
		return found == nil
	})
	require.NotNil(s.T, found, "no client with query %q", query)
	return found
}

// serverSides returns the server's sides by query.
func serverSides(s *harness.Server) map[string]*ws.Client {
	found := make(map[string]*ws.Client)
	s.RangeClients(func(c *ws.Client) bool {
		if q, ok := c.GetMetadata("query"); ok {
			found[q.(string)] = c
		}
		return true
	})
	return found
}

// queryOf names a connection: its user and its number.
func queryOf(user, id int) string { return fmt.Sprintf("user=%d&id=%d", user, id) }

// heapInUse returns the bytes of reachable heap.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
