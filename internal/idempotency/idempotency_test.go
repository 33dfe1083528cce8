package idempotency_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/idempotency"
	"github.com/qi-realtime/ws/internal/race"
)

// conn is a connection.
type conn struct{ closed atomic.Bool }

func (c *conn) IsClosed() bool { return c.closed.Load() }

type (
	table = idempotency.Table[*conn]
	entry = idempotency.Entry[*conn]
)

const window = time.Minute

func newTable(bytes, perOwner int64) *table {
	return idempotency.New[*conn](idempotency.Config{Window: window, Bytes: bytes, PerOwner: perOwner})
}

// run begins a request that must be new, and answers it.
func run(t *testing.T, tab *table, now time.Duration, owner, id, reply string) {
	t.Helper()
	e, _, o := tab.Begin(now, owner, id, 1, &conn{})
	require.Equal(t, idempotency.Run, o)
	_, first := tab.Finish(now, e, []byte(reply))
	require.True(t, first)
}

// outcomeOf begins a request and returns the outcome.
func outcomeOf(tab *table, now time.Duration, owner, id string) idempotency.Outcome {
	_, _, o := tab.Begin(now, owner, id, 1, &conn{})
	return o
}

func TestLifeOfAnEntry(t *testing.T) {
	tab := newTable(1<<20, 1<<20)
	a, b, c := &conn{}, &conn{}, &conn{}
	e, _, o := tab.Begin(0, "u", "1", 7, a)
	require.Equal(t, idempotency.Run, o)
	assert.True(t, tab.Unanswered())
	for _, asker := range []*conn{a, b, c, b, a, c} {
		_, _, o := tab.Begin(10*window, "u", "1", 7, asker)
		assert.Equal(t, idempotency.Wait, o, "a running request does not end with the window")
	}
	_, _, o = tab.Begin(0, "u", "1", 8, b)
	assert.Equal(t, idempotency.Differs, o)
	_, _, o = tab.Begin(0, "v", "1", 8, b)
	assert.Equal(t, idempotency.Run, o, "another owner")

	waiting, first := tab.Finish(10*window, e, []byte("reply"))
	assert.True(t, first)
	assert.Equal(t, []*conn{b, c}, waiting, "each once, and not the first")
	waiting, first = tab.Finish(10*window, e, []byte("another"))
	assert.False(t, first)
	assert.Empty(t, waiting)
	tab.Leave(10*window, e)

	_, reply, o := tab.Begin(11*window-1, "u", "1", 7, c)
	assert.Equal(t, idempotency.Replay, o)
	assert.Equal(t, "reply", string(reply))
	_, _, o = tab.Begin(11*window-1, "u", "1", 8, c)
	assert.Equal(t, idempotency.Differs, o)
	_, _, o = tab.Begin(11*window, "u", "1", 8, c)
	assert.Equal(t, idempotency.Run, o, "the window has ended")
	assert.EqualValues(t, 7, tab.Stats().Repeats)
	assert.EqualValues(t, 2, tab.Stats().Differed)
}

// An answer that comes after the handler has returned is found by the owner, the ID and the
// connection of the request.
func TestLateReply(t *testing.T) {
	tab := newTable(1<<20, 1<<20)
	a, b := &conn{}, &conn{}
	e, _, _ := tab.Begin(0, "u", "1", 7, a)
	tab.Leave(0, e)
	_, _, o := tab.Begin(1, "u", "1", 7, b)
	assert.Equal(t, idempotency.Wait, o)
	for _, wrong := range []struct {
		owner, id string
		runner    *conn
	}{{"v", "1", a}, {"u", "2", a}, {"u", "1", b}} {
		_, first := tab.FinishOf(1, wrong.owner, wrong.id, wrong.runner, []byte("no"))
		assert.False(t, first, "%v", wrong)
	}
	waiting, first := tab.FinishOf(1, "u", "1", a, []byte("reply"))
	assert.True(t, first)
	assert.Equal(t, []*conn{b}, waiting)
	assert.False(t, tab.Unanswered())
	_, first = tab.FinishOf(1, "u", "1", a, []byte("again"))
	assert.False(t, first)

	e, _, _ = tab.Begin(0, "u", "2", 7, a)
	tab.Leave(0, e)
	_, first = tab.FinishOf(window, "u", "2", a, []byte("too late"))
	assert.False(t, first, "the entry ended with the window")
	_, first = tab.Finish(window, e, []byte("too late"))
	assert.False(t, first)
	assert.False(t, tab.Unanswered())
}

func TestExpire(t *testing.T) {
	tab := newTable(1<<30, 1<<30)
	for i := range 1000 {
		run(t, tab, 0, strconv.Itoa(i%7), strconv.Itoa(i), "reply")
		e, _, _ := tab.Begin(0, "open", strconv.Itoa(i), 1, &conn{})
		tab.Leave(0, e)
	}
	running, _, _ := tab.Begin(0, "u", "running", 1, &conn{})
	tab.Expire(window - 1)
	assert.EqualValues(t, 2001, tab.Stats().Requests)
	tab.Expire(window)
	assert.EqualValues(t, 1, tab.Stats().Requests)
	assert.Zero(t, tab.Stats().Evicted, "an end with the window is no eviction")
	_, first := tab.Finish(window, running, nil)
	assert.True(t, first)
	tab.Expire(-1)
	assert.Equal(t, idempotency.Stats{}, tab.Stats(), "a clock that goes back ends entries")
}

// One owner gives up its own replies, and no reply of others.
func TestBoundOfAnOwner(t *testing.T) {
	tab := newTable(1<<20, 10*(idempotency.Overhead+100))
	run(t, tab, 0, "other", "1", "reply")
	for i := range 100 {
		run(t, tab, 0, "u", strconv.Itoa(i), strings.Repeat("x", 64))
	}
	assert.Equal(t, idempotency.Replay, outcomeOf(tab, 0, "other", "1"))
	assert.Equal(t, idempotency.Replay, outcomeOf(tab, 0, "u", "99"))
	assert.Equal(t, idempotency.Run, outcomeOf(tab, 0, "u", "0"), "the oldest")
	st := tab.Stats()
	assert.LessOrEqual(t, st.Requests, int64(11))
	assert.GreaterOrEqual(t, st.Evicted, uint64(90))
	assert.Zero(t, st.Refused)
}

// Requests without a reply are never given up: one more is refused.
func TestTooManyUnanswered(t *testing.T) {
	for name, tab := range map[string]*table{
		"of an owner": newTable(1<<20, 3*idempotency.Overhead),
		"of all":      newTable(3*idempotency.Overhead, 3*idempotency.Overhead),
	} {
		t.Run(name, func(t *testing.T) {
			e, _, o := tab.Begin(0, "u", "1", 1, &conn{})
			require.Equal(t, idempotency.Run, o)
			require.Equal(t, idempotency.Run, outcomeOf(tab, 0, "u", "2"))
			require.Equal(t, idempotency.Full, outcomeOf(tab, 0, "u", "3"))
			require.Equal(t, idempotency.Full, outcomeOf(tab, 0, "u", "3"), "it left nothing")
			require.Equal(t, idempotency.Wait, outcomeOf(tab, 0, "u", "1"))
			_, first := tab.Finish(0, e, []byte("r"))
			require.True(t, first)
			require.Equal(t, idempotency.Run, outcomeOf(tab, 0, "u", "3"), "a reply gives its space")
			assert.EqualValues(t, 2, tab.Stats().Refused)
		})
	}
}

func TestReplyTooLarge(t *testing.T) {
	tab := newTable(1<<20, 2000)
	run(t, tab, 0, "u", "1", strings.Repeat("x", 2000))
	assert.Equal(t, idempotency.Gone, outcomeOf(tab, 0, "u", "1"), "it does not run again")
	assert.EqualValues(t, 1, tab.Stats().Evicted)
	assert.Equal(t, idempotency.Run, outcomeOf(tab, window, "u", "1"))
}

// The bound of all entries gives up replies of any owner.
func TestBoundOfAll(t *testing.T) {
	const most = 100 << 10
	tab := newTable(most, most)
	for i := range 2000 {
		run(t, tab, 0, strconv.Itoa(i), "1", strings.Repeat("x", i%300))
		require.LessOrEqual(t, tab.Stats().Bytes, int64(most))
	}
	st := tab.Stats()
	assert.EqualValues(t, 2000, st.Evicted+uint64(st.Requests))
	assert.Greater(t, st.Requests, int64(100))
}

// A repeat costs nothing, and the list of waiting connections holds open ones only.
func TestWaitingConnections(t *testing.T) {
	tab := newTable(1<<20, 1<<20)
	e, _, _ := tab.Begin(0, "u", "1", 1, &conn{})
	last := &conn{}
	for range 10_000 {
		last = &conn{}
		_, _, o := tab.Begin(0, "u", "1", 1, last)
		require.Equal(t, idempotency.Wait, o)
		last.closed.Store(true)
	}
	waiting, _ := tab.Finish(0, e, nil)
	assert.Less(t, len(waiting), 10)
	assert.Equal(t, last, waiting[len(waiting)-1])
}

// The bytes of Stats are at least the memory of the heap.
func TestBytesAreTheHeap(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, owners := range []int{1, 20_000} {
		t.Run(fmt.Sprint(owners), func(t *testing.T) {
			var before, after runtime.MemStats
			tab := newTable(1<<40, 1<<40)
			reply := []byte(strings.Repeat("x", 100))
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range 20_000 {
				e, _, _ := tab.Begin(0, "user:"+strconv.Itoa(i%owners), "some-random-request-id-"+strconv.Itoa(i), 1, nil)
				tab.Finish(0, e, reply)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			heap := int64(after.HeapAlloc - before.HeapAlloc)
			t.Logf("heap %d, counted %d bytes an entry", heap/20_000, tab.Stats().Bytes/20_000)
			assert.LessOrEqual(t, heap, tab.Stats().Bytes)
			assert.LessOrEqual(t, tab.Stats().Bytes, 4*heap)
		})
	}
}

// Many goroutines repeat the same requests: each runs once, and every reply is the first.
func TestConcurrentRepeats(t *testing.T) {
	const requests, askers = 200, 16
	tab := newTable(1<<30, 1<<30)
	var runs, replies [requests]atomic.Int32
	var all sync.WaitGroup
	for a := range askers {
		all.Go(func() {
			c := &conn{}
			for i := range requests {
				id := strconv.Itoa((i*7 + a) % requests)
				n := (i*7 + a) % requests
				e, reply, o := tab.Begin(0, "u", id, uint64(n), c)
				switch o {
				case idempotency.Run:
					runs[n].Add(1)
					runtime.Gosched()
					waiting, first := tab.Finish(0, e, []byte(id))
					assert.True(t, first)
					replies[n].Add(int32(len(waiting)) + 1)
				case idempotency.Replay:
					assert.Equal(t, id, string(reply))
					replies[n].Add(1)
				default:
					assert.Equal(t, idempotency.Wait, o)
				}
			}
		})
	}
	all.Wait()
	for n := range requests {
		assert.EqualValues(t, 1, runs[n].Load())
		assert.EqualValues(t, askers, replies[n].Load(), "each connection gets the reply once")
	}
}

// Under its bounds a table never gives a wrong reply, and ends within the bounds.
func TestConcurrentUnderPressure(t *testing.T) {
	const most = 64 << 10
	tab := newTable(most, most/4)
	var all sync.WaitGroup
	for a := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(a), 2))
			c := &conn{}
			for step := range 3000 {
				owner, id := strconv.Itoa(r.IntN(20)), strconv.Itoa(r.IntN(20))
				want := strings.Repeat(owner+"/"+id+" ", 20)
				e, reply, o := tab.Begin(time.Duration(step)*window/1000, owner, id, 1, c)
				switch o {
				case idempotency.Run:
					tab.Finish(time.Duration(step)*window/1000, e, []byte(want))
				case idempotency.Replay:
					assert.Equal(t, want, string(reply))
				}
			}
		})
	}
	all.Wait()
	st := tab.Stats()
	assert.LessOrEqual(t, st.Bytes, int64(most))
	assert.False(t, tab.Unanswered())
	assert.Positive(t, st.Evicted)
	tab.Expire(100 * window)
	assert.Zero(t, tab.Stats().Bytes)
	assert.Zero(t, tab.Stats().Requests)
}

func BenchmarkBegin(b *testing.B) {
	tab := newTable(64<<20, 64<<20)
	reply := []byte(strings.Repeat("x", 200))
	c := &conn{}
	ids := make([]string, 1<<16)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if e, _, o := tab.Begin(time.Duration(i), "u", ids[i&(1<<16-1)], uint64(i), c); o == idempotency.Run {
				tab.Finish(time.Duration(i), e, reply)
			}
		}
	})
	b.Run("repeat", func(b *testing.B) {
		e, _, _ := tab.Begin(0, "v", "1", 1, c)
		tab.Finish(0, e, reply)
		b.ReportAllocs()
		for b.Loop() {
			tab.Begin(0, "v", "1", 1, c)
		}
	})
}
