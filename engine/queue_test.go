package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/engine"
)

// written returns the bytes that writev would send.
func written(iov []unix.Iovec) []byte {
	var b []byte
	for _, v := range iov {
		b = append(b, unsafe.Slice(v.Base, v.Len)...)
	}
	return b
}

// raw returns a frame of these bytes.
func raw(text string, h engine.Handling) *engine.Frame { return engine.RawFrame([]byte(text), h) }

// waiting returns all bytes that q would send.
func waiting(q *engine.Queue) string {
	iov, _ := q.Gather(make([]unix.Iovec, 0, 1<<12), 1<<30)
	return string(written(iov))
}

func TestQueueLanesOvertakeButNeverWithinAFrame(t *testing.T) {
	var q engine.Queue
	q.Push(raw("normal-1 ", engine.Handling{}))
	q.Push(raw("normal-2 ", engine.Handling{}))
	frames, n := q.Advance(3) // "normal-1 " is half sent
	assert.Zero(t, frames+n)
	q.Push(raw("high ", engine.Handling{Lane: engine.LaneHigh}))
	q.Push(engine.ControlFrame([]byte("ping ")))
	iov, total := q.Gather(make([]unix.Iovec, 0, 16), 1<<20)
	assert.Equal(t, "mal-1 ping high normal-2 ", string(written(iov)))
	assert.Equal(t, 25, total)
	frames, n = q.Advance(total)
	assert.Equal(t, 3, frames, "control frames do not count")
	assert.Equal(t, len("normal-1 ")+len("high ")+len("normal-2 "), n)
	assert.True(t, q.Empty())
	assert.Zero(t, q.Cost())
}

func TestQueueGatherIsBounded(t *testing.T) {
	var q engine.Queue
	for i := range 100 {
		q.Push(raw(fmt.Sprintf("%04d", i), engine.Handling{}))
	}
	iov, total := q.Gather(make([]unix.Iovec, 0, 10), 1<<20)
	assert.Len(t, iov, 10)
	assert.Equal(t, 40, total)
	iov, total = q.Gather(make([]unix.Iovec, 0, 100), 25)
	assert.Len(t, iov, 7, "the frame that reaches the bound is the last")
	assert.Equal(t, 28, total)
}

func TestQueueConflatesInPlace(t *testing.T) {
	room1, room2 := new(engine.Drops), new(engine.Drops)
	price := func(text, key string, scope *engine.Drops) *engine.Frame {
		return raw(text, engine.Handling{Key: key, Scope: scope})
	}
	for _, before := range []int{0, 100} { // without and with an index
		t.Run(fmt.Sprint(before, " before"), func(t *testing.T) {
			var q engine.Queue
			for range before {
				q.Push(raw("", engine.Handling{}))
			}
			q.Push(price("a1 ", "a", room1))
			q.Push(raw("plain ", engine.Handling{}))
			q.Push(price("b1 ", "b", room1))
			q.Push(price("A1 ", "a", room2))
			assert.Nil(t, q.Replace(price("c1 ", "c", room1)))
			high := raw("high ", engine.Handling{Lane: engine.LaneHigh, Key: "a", Scope: room1})
			assert.Nil(t, q.Replace(high), "another lane")
			assert.Nil(t, q.Replace(price("nowhere ", "a", nil)), "another scope")
			assert.Equal(t, "a1 ", string(q.Replace(price("a2-longer ", "a", room1)).Data()))
			assert.Equal(t, "A1 ", string(q.Replace(price("A2 ", "a", room2)).Data()))
			assert.Equal(t, "a2-longer ", string(q.Replace(price("a3 ", "a", room1)).Data()))
			assert.Equal(t, "a3 plain b1 A2 ", waiting(&q))
			q.Advance(1) // a3 is half sent
			assert.Nil(t, q.Replace(price("a4 ", "a", room1)), "a partly sent frame stays")
			assert.Equal(t, "b1 ", string(q.Replace(price("b2 ", "b", room1)).Data()))
			assert.Equal(t, "3 plain b2 A2 ", waiting(&q))
		})
	}
}

func TestQueuePurgesExpiredFrames(t *testing.T) {
	var q engine.Queue
	push := func(text string, at time.Duration, h engine.Handling) { q.Push(raw(text, h).ExpiringAt(at)) }
	push("half-sent ", 1, engine.Handling{})
	q.Advance(5)
	push("a ", 10, engine.Handling{Key: "a"})
	push("stays ", 0, engine.Handling{})
	push("b ", 30, engine.Handling{})
	push("high ", 20, engine.Handling{Lane: engine.LaneHigh})
	var gone []string
	purge := func(now time.Duration) []string {
		gone = nil
		q.Purge(now, func(f *engine.Frame) { gone = append(gone, string(f.Data())) })
		return gone
	}
	assert.Empty(t, purge(9))
	assert.Equal(t, []string{"a "}, purge(10), "at the very moment")
	assert.Nil(t, q.Replace(raw("a2 ", engine.Handling{Key: "a"})), "it is gone from the index")
	assert.Equal(t, "sent high stays b ", waiting(&q))
	assert.Equal(t, []string{"b ", "high "}, purge(100))
	assert.Empty(t, purge(1000))
	assert.Equal(t, "sent stays ", waiting(&q))
}

// lanesInOrder are the lanes in the order in which a Queue sends them.
var lanesInOrder = []engine.Lane{engine.LaneControl, engine.LaneHigh, engine.LaneNormal}

// queueModel is a Queue, and beside it a slow, obvious one of plain slices.
type queueModel struct {
	*testing.T
	rng    *rand.Rand
	q      engine.Queue
	lanes  [3][]*engine.Frame
	half   *engine.Frame // half sent
	sent   int           // bytes of half
	scopes [2]*engine.Drops
	now    time.Duration
	number int // of the last frame
}

// TestQueueAgainstAModel does random operations and compares with plain slices.
func TestQueueAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := &queueModel{T: t, rng: rand.New(rand.NewPCG(seed, 4)), now: 1}
			m.scopes[1] = new(engine.Drops)
			m.run()
		})
	}
}

func (m *queueModel) run() {
	for range 5000 {
		m.now++
		switch n := m.rng.IntN(100); {
		case n < 60:
			m.push(m.newFrame())
		case n < 65:
			m.evict(engine.Lane(m.rng.IntN(2)), m.rng.IntN(2) == 0)
		case n < 70:
			m.purge()
		case n == 70:
			m.q.Clear(func(*engine.Frame) {})
			clear(m.lanes[:])
		default:
			_, total := m.q.Gather(make([]unix.Iovec, 0, 1+m.rng.IntN(64)), 1+m.rng.IntN(200))
			n := m.rng.IntN(total + 1)
			m.q.Advance(n)
			m.send(n)
		}
		m.check()
	}
}

func (m *queueModel) newFrame() *engine.Frame {
	m.number++
	text := fmt.Appendf(nil, "<%d:%s>", m.number, bytes.Repeat([]byte("x"), m.rng.IntN(30)))
	if m.rng.IntN(10) == 0 {
		return engine.ControlFrame(text)
	}
	h := engine.Handling{Lane: engine.Lane(m.rng.IntN(2)), Scope: m.scopes[m.rng.IntN(2)]}
	if m.rng.IntN(2) == 0 {
		h.Key = fmt.Sprint(m.rng.IntN(60))
	}
	f := engine.RawFrame(text, h)
	if m.rng.IntN(4) == 0 {
		f.ExpiringAt(m.now + time.Duration(m.rng.IntN(50)))
	}
	return f
}

// push appends f, or replaces the frame with its key.
func (m *queueModel) push(f *engine.Frame) {
	lane := &m.lanes[f.Lane()]
	if f.Key() != "" {
		old := m.q.Replace(f)
		if i := slices.IndexFunc(*lane, func(g *engine.Frame) bool {
			return g.Key() == f.Key() && g.Scope() == f.Scope()
		}); i >= 0 {
			require.Same(m, (*lane)[i], old)
			(*lane)[i] = f
			return
		}
		require.Nil(m, old)
	}
	m.q.Push(f)
	*lane = append(*lane, f)
}

func (m *queueModel) evict(lane engine.Lane, oldest bool) {
	l := &m.lanes[lane]
	if len(*l) == 0 {
		return
	}
	i := len(*l) - 1
	if oldest {
		i = 0
	}
	require.Same(m, (*l)[i], m.q.Evict(lane, oldest))
	*l = slices.Delete(*l, i, i+1)
}

// purge removes the expired frames.
func (m *queueModel) purge() {
	want, got := 0, 0
	for i := range m.lanes {
		before := len(m.lanes[i])
		m.lanes[i] = slices.DeleteFunc(m.lanes[i], func(f *engine.Frame) bool {
			return f.Expires() != 0 && f.Expires() <= m.now
		})
		want += before - len(m.lanes[i])
	}
	m.q.Purge(m.now, func(*engine.Frame) { got++ })
	require.Equal(m, want, got)
}

// send removes the n bytes that were sent from the slices.
func (m *queueModel) send(n int) {
	for n > 0 {
		if m.half == nil {
			m.half, m.sent = m.first(), 0
		}
		step := min(n, m.half.Len()-m.sent)
		if m.sent, n = m.sent+step, n-step; m.sent == m.half.Len() {
			m.half = nil
		}
	}
}

// first removes the frame that is sent next.
func (m *queueModel) first() *engine.Frame {
	for _, lane := range lanesInOrder {
		if l := m.lanes[lane]; len(l) > 0 {
			m.lanes[lane] = l[1:]
			return l[0]
		}
	}
	return nil
}

// check compares the queue with the slices.
func (m *queueModel) check() {
	var want []byte
	cost := 0
	if m.half != nil {
		want = append(want, m.half.Data()[m.sent:]...)
		cost += m.half.Cost()
	}
	for _, lane := range lanesInOrder {
		for _, f := range m.lanes[lane] {
			want = append(want, f.Data()...)
			cost += f.Cost()
		}
	}
	require.Equal(m, string(want), waiting(&m.q))
	require.Equal(m, cost, m.q.Cost())
	require.Equal(m, len(want) == 0, m.q.Empty())
}

// TestConnSize holds the budget in the comment of Conn.
func TestConnSize(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(engine.Conn{}), uintptr(112))
	assert.LessOrEqual(t, unsafe.Sizeof(engine.Queue{}), uintptr(352), "a connection with frames, or blocked")
}

// BenchmarkQueue measures one turn of a connection: frames are queued, gathered
// for writev, and removed as sent.
func BenchmarkQueue(b *testing.B) {
	for _, frames := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("frames=%d", frames), func(b *testing.B) {
			var q engine.Queue
			f := raw(string(make([]byte, 512)), engine.Handling{})
			iov := make([]unix.Iovec, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				for range frames {
					q.Push(f)
				}
				_, total := q.Gather(iov, 1<<20)
				q.Advance(total)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(frames), "ns/frame")
		})
	}
}

// In a lane from which frames leave as fast as they come, the age stays between
// the distance of the marks, less a tick, and the time that the frames wait.
func TestAgeOfASteadyQueue(t *testing.T) {
	const spacing, wait = 20, 100
	var q engine.Queue
	for now := range uint32(1000) {
		q.Push(raw("x", engine.Handling{}))
		q.NoteAges(now, spacing)
		if now < wait {
			require.Equal(t, now, q.Age(now))
			continue
		}
		_, _ = q.Advance(1)
		require.LessOrEqual(t, q.Age(now), uint32(wait))
		require.GreaterOrEqual(t, q.Age(now), uint32(spacing-1), "at %d", now)
	}
}

// A frame that conflates another one has its age; a partly sent frame keeps its
// age from the time when the socket became full.
func TestAgeOfAPlace(t *testing.T) {
	var q engine.Queue
	price := func(text string) *engine.Frame { return raw(text, engine.Handling{Key: "a"}) }
	q.Push(price("1"))
	q.NoteAges(10, 5)
	for now := uint32(11); now < 50; now++ {
		require.NotNil(t, q.Replace(price("22")))
		q.NoteAges(now, 5)
		require.Equal(t, now-10, q.Age(now))
	}
	q.Advance(1)
	assert.Zero(t, q.Age(60), "half sent, and its socket takes more")
	q.NoteBegun(60)
	q.NoteBegun(70) // it has taken a little
	assert.EqualValues(t, 20, q.Age(80))
	q.Advance(1)
	assert.Zero(t, q.Age(90))
	q.Push(price("3"))
	q.NoteAges(100, 5)
	q.Reset()
	assert.Zero(t, q.Age(110))
}

// TestAgeAgainstAModel does random operations: the age is never more than the
// age of the oldest frame, and not 0 while frames wait.
func TestAgeAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var q engine.Queue
		type queued struct {
			tick    uint32
			expires bool
		}
		var lanes [2][]queued
		for now := uint32(1); now < 3000; now++ {
			lane := rng.IntN(2)
			l := &lanes[lane]
			switch n := rng.IntN(20); {
			case n < 11:
				f := raw("x", engine.Handling{Lane: engine.Lane(lane)})
				expires := rng.IntN(3) == 0
				if expires {
					f.ExpiringAt(time.Duration(now + 1))
				}
				q.Push(f)
				q.NoteAges(now, 30)
				*l = append(*l, queued{now, expires})
			case n < 13 && len(*l) > 0: // evict
				at := rng.IntN(2) * (len(*l) - 1)
				q.Evict(engine.Lane(lane), at == 0)
				*l = slices.Delete(*l, at, at+1)
			case n < 19: // send
				lane := 1
				if len(lanes[1]) == 0 {
					lane = 0
				}
				if len(lanes[lane]) > 0 {
					_, _ = q.Advance(1)
					lanes[lane] = lanes[lane][1:]
				}
			default: // expire
				q.Purge(time.Duration(now), func(*engine.Frame) {})
				for i := range lanes {
					lanes[i] = slices.DeleteFunc(lanes[i], func(f queued) bool { return f.expires })
				}
			}
			oldest := uint32(0)
			for _, l := range lanes {
				if len(l) > 0 {
					oldest = max(oldest, now-l[0].tick)
				}
			}
			require.LessOrEqual(t, q.Age(now), oldest, "seed %d, tick %d", seed, now)
			if oldest == 0 {
				require.Zero(t, q.Age(now))
			}
		}
	}
}
