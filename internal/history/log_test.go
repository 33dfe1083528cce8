package history_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/history"
)

// message is a message whose memory may grow.
type message struct {
	offset uint64
	bytes  int64
	at     time.Duration
}

func size(m *message) int64 { return m.bytes }

// model is a Log as a plain slice.
type model struct {
	cfg  history.Config
	kept []*message
	base uint64 // the greatest offset of a message that was dropped, or skipped
	top  uint64
}

func (m *model) bytes() (sum int64) {
	for _, e := range m.kept {
		sum += e.bytes
	}
	return sum
}

// drop drops the messages for which excluded returns true.
func (m *model) drop(excluded func(e *message) bool) {
	m.kept = slices.DeleteFunc(m.kept, func(e *message) bool {
		if !excluded(e) {
			return false
		}
		m.base = e.offset
		return true
	})
}

func (m *model) expire(now time.Duration) {
	m.drop(func(e *message) bool { return m.cfg.TTL > 0 && now-e.at >= m.cfg.TTL })
}

func (m *model) add(e *message) {
	m.expire(e.at)
	for len(m.kept) > 0 && (len(m.kept) >= m.cfg.Size || m.cfg.Bytes > 0 && m.bytes()+e.bytes > m.cfg.Bytes) {
		m.evict(1)
	}
	m.top = e.offset
	m.kept = append(m.kept, e)
}

func (m *model) evict(n int) (evicted int) {
	evicted = min(n, len(m.kept))
	if evicted > 0 {
		m.base = m.kept[evicted-1].offset
	}
	m.kept = m.kept[evicted:]
	return evicted
}

func (m *model) skip(offset uint64) {
	if offset > m.top {
		m.kept, m.base, m.top = nil, offset, offset
	}
}

// following returns the messages after the offset, up to the one at last.
func (m *model) following(after, last uint64) (list []*message) {
	for _, e := range m.kept {
		if e.offset > after && e.offset <= last {
			list = append(list, e)
		}
	}
	return list
}

// before returns the offset of the message before the newest n ones.
func (m *model) before(n int) uint64 {
	switch {
	case n == 0:
		return m.top
	case n >= len(m.kept):
		return m.base
	}
	return m.kept[len(m.kept)-n-1].offset
}

// TestLogAgainstASlice runs random operations on a Log and on a plain slice, with holes of several
// sizes in the offsets.
func TestLogAgainstASlice(t *testing.T) {
	for _, holes := range []int{0, 1, 30} {
		for seed := range uint64(30) {
			rng := rand.New(rand.NewPCG(seed, uint64(holes)))
			cfg := history.Config{
				Size: 1 + rng.IntN(40), Bytes: int64(rng.IntN(3)) * 2000, TTL: time.Duration(rng.IntN(3)) * 50,
			}
			l, m := history.NewLog[*message](cfg), &model{cfg: cfg}
			now := time.Duration(0)
			for range 500 {
				now += time.Duration(rng.IntN(4))
				change(t, rng, &l, m, now, holes)
				require.Equal(t, m.top, l.Top())
				require.Equal(t, m.base, l.Base())
				require.Equal(t, len(m.kept), l.Len())
			}
			got, _ := l.After(0, l.Top(), make([]history.Item[*message], 0, 100))
			checkItems(t, m.kept, got)
			require.GreaterOrEqual(t, l.Bytes(), m.bytes())
			require.LessOrEqual(t, l.Bytes(), m.bytes()+32*int64(max(4, 4*len(m.kept), 4*cfg.Size)))
			l.Evict(l.Len())
			require.Zero(t, l.Bytes())
		}
	}
}

// change runs one random operation on both.
func change(
	t *testing.T, rng *rand.Rand, l *history.Log[*message], m *model, now time.Duration, holes int,
) {
	t.Helper()
	hole := uint64(rng.IntN(holes + 1))
	switch op := rng.IntN(42); {
	case op < 28:
		e := &message{offset: m.top + 1 + hole, bytes: int64(rng.IntN(300)), at: now}
		m.add(e)
		l.AppendAt(e.offset, e, e.bytes, now)
	case op < 32:
		l.Expire(now)
		m.expire(now)
	case op < 34:
		n := rng.IntN(10)
		require.Equal(t, m.evict(n), l.Evict(n))
	case op < 36:
		offset := uint64(rng.IntN(int(m.top) + 3))
		m.drop(func(e *message) bool { return e.offset <= offset })
		l.Trim(offset)
	case op == 36:
		offset := m.top + hole - min(m.top, uint64(rng.IntN(3)))
		m.skip(offset)
		l.Skip(offset)
	default:
		checkReads(t, rng, l, m)
	}
}

// checkReads reads from random places, and lets a message grow.
func checkReads(t *testing.T, rng *rand.Rand, l *history.Log[*message], m *model) {
	t.Helper()
	after, last := uint64(rng.IntN(int(m.top)+3)), uint64(rng.IntN(int(m.top)+3))
	if len(m.kept) > 0 {
		m.kept[rng.IntN(len(m.kept))].bytes += int64(rng.IntN(20))
	}
	space := rng.IntN(50)
	got, base := l.After(after, last, make([]history.Item[*message], 0, space))
	want := m.following(after, last)
	checkItems(t, want[:min(space, len(want))], got)
	require.Equal(t, m.base, base)
	require.Equal(t, len(m.following(after, m.top)), l.Count(after))
	n := rng.IntN(45)
	require.Equal(t, m.before(n), l.Before(n), "before the newest %d", n)
	if l.Weigh(after+1, last, size); rng.IntN(2) == 0 {
		l.Weigh(0, l.Top()+3, size)
	}
	l.Weigh(0, l.Top(), size) // settles the sizes
}

func checkItems(t *testing.T, want []*message, got []history.Item[*message]) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, e := range want {
		require.Equal(t, history.Item[*message]{Offset: e.offset, Message: e}, got[i])
	}
}

func TestLogGivesMemoryBack(t *testing.T) {
	l := history.NewLog[*message](history.Config{Size: 1000, TTL: time.Second})
	for i := range 1000 {
		l.AppendAt(uint64(i+1), &message{}, 0, time.Duration(i)*time.Millisecond)
	}
	require.EqualValues(t, 1024*32, l.Bytes())
	l.Expire(1900 * time.Millisecond)
	require.Equal(t, 99, l.Len())
	for range 10 {
		l.Expire(1900 * time.Millisecond)
	}
	require.EqualValues(t, 256*32, l.Bytes())
	l.Expire(time.Hour)
	require.Zero(t, l.Bytes())
	require.EqualValues(t, 1000, l.Base())
}

func TestAppendReusesTheRing(t *testing.T) {
	l := history.NewLog[*message](history.Config{Size: 64})
	m := &message{}
	appendNext := func() { l.AppendAt(l.Top()+1, m, 10, 0) }
	for range 200 {
		appendNext()
	}
	require.Zero(t, testing.AllocsPerRun(100, appendNext))
}
