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
	top  uint64
}

func (m *model) bytes() (sum int64) {
	for _, e := range m.kept {
		sum += e.bytes
	}
	return sum
}

func (m *model) expire(now time.Duration) {
	m.kept = slices.DeleteFunc(m.kept, func(e *message) bool { return m.cfg.TTL > 0 && now-e.at >= m.cfg.TTL })
}

func (m *model) add(e *message, now time.Duration) {
	m.expire(now)
	for len(m.kept) > 0 && (len(m.kept) >= m.cfg.Size || m.cfg.Bytes > 0 && m.bytes()+e.bytes > m.cfg.Bytes) {
		m.kept = m.kept[1:]
	}
	m.top++
	e.offset, e.at = m.top, now
	m.kept = append(m.kept, e)
}

// TestLogAgainstASlice runs random operations on a Log and on a plain slice.
func TestLogAgainstASlice(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cfg := history.Config{
			Size: 1 + rng.IntN(40), Bytes: int64(rng.IntN(3)) * 2000, TTL: time.Duration(rng.IntN(3)) * 50,
		}
		l, m := history.NewLog[*message](cfg), &model{cfg: cfg}
		now := time.Duration(0)
		for range 500 {
			now += time.Duration(rng.IntN(4))
			switch op := rng.IntN(21); {
			case op < 14:
				e := &message{bytes: int64(rng.IntN(300))}
				m.add(e, now)
				require.Equal(t, m.top, l.Append(e, e.bytes, now))
			case op < 16:
				l.Expire(now)
				m.expire(now)
			case op < 17:
				n := rng.IntN(10)
				want := min(n, len(m.kept))
				m.kept = m.kept[want:]
				require.Equal(t, want, l.Evict(n))
			case op < 18:
				offset := uint64(rng.IntN(int(m.top) + 3))
				m.kept = slices.DeleteFunc(m.kept, func(e *message) bool { return e.offset <= offset })
				l.Trim(offset)
			default:
				checkAfter(t, rng, &l, m)
			}
			require.Equal(t, m.top, l.Top())
			require.Equal(t, len(m.kept), l.Len())
			require.Equal(t, m.top+1-uint64(len(m.kept)), l.Oldest())
		}
		got, _ := l.After(0, l.Top(), make([]*message, 0, 100))
		require.True(t, slices.Equal(got, m.kept))
		require.GreaterOrEqual(t, l.Bytes(), m.bytes())
		require.LessOrEqual(t, l.Bytes(), m.bytes()+24*int64(max(4, 4*len(m.kept), 4*cfg.Size)))
		l.Evict(l.Len())
		require.Zero(t, l.Bytes())
	}
}

// checkAfter reads from a random place, and lets a message grow.
func checkAfter(t *testing.T, rng *rand.Rand, l *history.Log[*message], m *model) {
	t.Helper()
	after, last := uint64(rng.IntN(int(m.top)+3)), uint64(rng.IntN(int(m.top)+3))
	if len(m.kept) > 0 {
		m.kept[rng.IntN(len(m.kept))].bytes += int64(rng.IntN(20))
	}
	space := rng.IntN(50)
	got, from := l.After(after, last, make([]*message, 0, space))
	var want []*message
	for _, e := range m.kept {
		if e.offset > after && e.offset <= last && len(want) < space {
			want = append(want, e)
		}
	}
	require.True(t, slices.Equal(want, got), "after %d, up to %d", after, last)
	require.Equal(t, max(after+1, l.Oldest()), from)
	if l.Weigh(after+1, last, size); rng.IntN(2) == 0 {
		l.Weigh(0, l.Top()+3, size)
	}
	l.Weigh(l.Oldest(), l.Top(), size) // settles the sizes
}

func TestLogGivesMemoryBack(t *testing.T) {
	l := history.NewLog[*message](history.Config{Size: 1000, TTL: time.Second})
	for i := range 1000 {
		l.Append(&message{}, 0, time.Duration(i)*time.Millisecond)
	}
	require.EqualValues(t, 1024*24, l.Bytes())
	l.Expire(1900 * time.Millisecond)
	require.Equal(t, 99, l.Len())
	for range 10 {
		l.Expire(1900 * time.Millisecond)
	}
	require.EqualValues(t, 256*24, l.Bytes())
	l.Expire(time.Hour)
	require.Zero(t, l.Bytes())
	require.EqualValues(t, 1001, l.Append(&message{}, 5, 0))
}

func TestAppendReusesTheRing(t *testing.T) {
	l := history.NewLog[*message](history.Config{Size: 64})
	m := &message{}
	for range 200 {
		l.Append(m, 10, 0)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { l.Append(m, 10, 0) }))
}
