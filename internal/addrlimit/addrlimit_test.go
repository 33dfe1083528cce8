package addrlimit_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/addrlimit"
)

func key(n int) addrlimit.Key {
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], uint32(n))
	return addrlimit.KeyOf(netip.AddrFrom4(ip))
}

func TestKeyOf(t *testing.T) {
	same := [][]string{
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"192.0.2.2"},
		{"0.0.0.0"},
		{"::1", "::", "::2%eth0"},
		{"2001:db8::1", "2001:db8::ffff:1", "2001:db8::1%eth0"},
		{"2001:db8:0:1::1"},
		{"0:0:0:1::1"},
	}
	seen := map[addrlimit.Key]string{0: "none"}
	for _, addrs := range same {
		k := addrlimit.KeyOf(netip.MustParseAddr(addrs[0]))
		if other, taken := seen[k]; taken && addrs[0] != "0:0:0:1::1" { // in a reserved network, like ::/64
			t.Errorf("%s has the key of %s", addrs[0], other)
		}
		seen[k] = addrs[0]
		for _, addr := range addrs[1:] {
			assert.Equal(t, k, addrlimit.KeyOf(netip.MustParseAddr(addr)), addr)
		}
	}
	assert.Zero(t, addrlimit.KeyOf(netip.Addr{}))
}

func TestNoLimitNeedsNoTable(t *testing.T) {
	require.Nil(t, addrlimit.New(addrlimit.Limits{Burst: 1, Places: 100}))
}

func TestRate(t *testing.T) {
	table := addrlimit.New(addrlimit.Limits{PerSecond: 10, Burst: 3, Places: 100})
	for i, step := range []struct {
		at   time.Duration
		want addrlimit.Verdict
	}{
		{0, addrlimit.Counted},
		{0, addrlimit.Counted},
		{0, addrlimit.Counted},
		{0, addrlimit.TooFast},
		{99 * time.Millisecond, addrlimit.TooFast},
		{100 * time.Millisecond, addrlimit.Counted},
		{100 * time.Millisecond, addrlimit.TooFast},
		{time.Hour, addrlimit.Counted},
		{time.Hour, addrlimit.Counted},
		{time.Hour, addrlimit.Counted},
		{time.Hour, addrlimit.TooFast},
	} {
		require.Equal(t, step.want, table.Admit(key(1), step.at), "step %d", i)
	}
	require.Equal(t, addrlimit.Counted, table.Admit(key(2), time.Hour), "another address has a burst of its own")
}

func TestExtremeRates(t *testing.T) {
	for _, rate := range []float64{1e-300, 1e-6, 1e9, 1e300} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			table := addrlimit.New(addrlimit.Limits{PerSecond: rate, Burst: 1 << 30, Places: 1})
			for hour := range 1000 {
				require.Equal(t, addrlimit.Counted, table.Admit(key(1), time.Duration(hour)*time.Hour))
			}
		})
	}
}

func TestConnections(t *testing.T) {
	table := addrlimit.New(addrlimit.Limits{Connections: 2, Places: 100})
	require.Equal(t, addrlimit.Counted, table.Admit(key(1), 0))
	require.Equal(t, addrlimit.Counted, table.Admit(key(1), 0))
	require.Equal(t, addrlimit.TooMany, table.Admit(key(1), 0))
	require.Equal(t, addrlimit.Counted, table.Admit(key(2), 0))
	require.Equal(t, 2, table.Addresses())
	table.Leave(key(1))
	require.Equal(t, addrlimit.Counted, table.Admit(key(1), 0))
	require.Equal(t, addrlimit.TooMany, table.Admit(key(1), 0))
	for _, k := range []int{1, 1, 2} {
		table.Leave(key(k))
	}
	require.Zero(t, table.Addresses())
}

// TestAFullTableRefusesNobody has many more addresses with open connections than places.
func TestAFullTableRefusesNobody(t *testing.T) {
	const n = 50_000
	table := addrlimit.New(addrlimit.Limits{PerSecond: 1e-6, Burst: 1, Connections: 1, Places: 1})
	var counted []int
	for i := range n {
		switch v := table.Admit(key(i), 0); v {
		case addrlimit.Counted:
			counted = append(counted, i)
		case addrlimit.Uncounted:
		default:
			t.Fatalf("address %d is refused: %d", i, v)
		}
	}
	require.Equal(t, len(counted), table.Addresses())
	require.EqualValues(t, n-len(counted), table.Uncounted())
	require.Greater(t, len(counted), 8000, "of 8,192 places")
	for _, i := range counted {
		require.Equal(t, addrlimit.TooMany, table.Admit(key(i), 0), "an address has lost its count")
		table.Leave(key(i))
	}
	require.Zero(t, table.Addresses())
}

// TestThePlacesSuffice asserts that as many addresses as Limits.Places are all counted.
func TestThePlacesSuffice(t *testing.T) {
	for _, places := range []int{1000, 10_000, 100_000} {
		table := addrlimit.New(addrlimit.Limits{Connections: 1, Places: places})
		for i := range places {
			require.Equal(t, addrlimit.Counted, table.Admit(key(i), 0))
		}
	}
}

// TestAddressesThatAreGoneGiveWay asserts that an address without connections never keeps
// another one out, and that the one whose burst is whole first loses its place.
func TestAddressesThatAreGoneGiveWay(t *testing.T) {
	table := addrlimit.New(addrlimit.Limits{PerSecond: 1, Burst: 1, Places: 1})
	const n = 50_000
	for i := range n {
		now := time.Duration(i) * time.Microsecond
		require.Equal(t, addrlimit.Counted, table.Admit(key(i), now))
		table.Leave(key(i))
	}
	require.Equal(t, addrlimit.TooFast, table.Admit(key(n-1), n*time.Microsecond), "the newest address is forgotten")
	require.Equal(t, addrlimit.Counted, table.Admit(key(0), n*time.Microsecond), "the oldest address has kept its place")
	require.Zero(t, table.Uncounted())
}

func TestAdmitAllocatesNothing(t *testing.T) {
	table := addrlimit.New(addrlimit.Limits{PerSecond: 1e-6, Burst: 100, Connections: 100, Places: 100})
	i := 0
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		i++
		if table.Admit(key(i), 0) == addrlimit.Counted {
			table.Leave(key(i))
		}
		table.Admit(key(1), 0) // refused in the end
	}))
}

// model is a table without a bound of its size, in plain maps.
type model struct {
	limits addrlimit.Limits
	whole  map[int]time.Duration
	open   map[int]int
}

func (m *model) admit(k int, now time.Duration) addrlimit.Verdict {
	interval := time.Duration(float64(time.Second) / m.limits.PerSecond)
	switch {
	case m.open[k] >= m.limits.Connections:
		return addrlimit.TooMany
	case m.whole[k] > now+time.Duration(m.limits.Burst-1)*interval:
		return addrlimit.TooFast
	}
	m.whole[k] = max(m.whole[k], now) + interval
	m.open[k]++
	return addrlimit.Counted
}

// agree runs the operations of ops on a table and on a model, with few enough addresses that
// none loses its place.
func agree(t *testing.T, ops []byte) {
	limits := addrlimit.Limits{PerSecond: 100, Burst: 4, Connections: 6, Places: 1000}
	table := addrlimit.New(limits)
	m := &model{limits, map[int]time.Duration{}, map[int]int{}}
	var now time.Duration
	for i, op := range ops {
		k := int(op & 31)
		switch op >> 5 {
		case 0, 1, 2, 3:
			want := m.admit(k, now)
			require.Equal(t, want, table.Admit(key(k), now), "operation %d: admit %d", i, k)
		case 4, 5, 6:
			if m.open[k] > 0 {
				m.open[k]--
				table.Leave(key(k))
			}
		default:
			now += time.Duration(k) * time.Millisecond
		}
		addresses := 0
		for _, n := range m.open {
			addresses += min(n, 1)
		}
		require.Equal(t, addresses, table.Addresses(), "operation %d", i)
	}
	require.Zero(t, table.Uncounted())
}

func TestRandomOperations(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 2000)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		agree(t, ops)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 255, 0, 160, 160, 0})
	f.Add([]byte("connections come and go"))
	f.Fuzz(agree)
}

// TestCrowdedRandomOperations has far more addresses than places. It asserts the promises that
// remain: counts never exceed the limit, no address without connections is refused for their
// number, and at the end nothing is left.
func TestCrowdedRandomOperations(t *testing.T) {
	const limit = 3
	table := addrlimit.New(addrlimit.Limits{Connections: limit, Places: 1})
	r := rand.New(rand.NewPCG(1, 2))
	counted := map[int]int{}
	for range 200_000 {
		k := r.IntN(30_000)
		if r.IntN(3) == 0 {
			for k, n := range counted { // any one
				if counted[k]--; n == 1 {
					delete(counted, k)
				}
				table.Leave(key(k))
				break
			}
			continue
		}
		switch table.Admit(key(k), 0) {
		case addrlimit.Counted:
			counted[k]++
			require.LessOrEqual(t, counted[k], limit)
		case addrlimit.TooMany:
			require.Equal(t, limit, counted[k])
		case addrlimit.Uncounted:
			require.Zero(t, counted[k], "an address with connections has lost its place")
		case addrlimit.TooFast:
			t.Fatal("there is no rate")
		}
	}
	require.Equal(t, len(counted), table.Addresses())
	for k, n := range counted {
		for range n {
			table.Leave(key(k))
		}
	}
	require.Zero(t, table.Addresses())
}

func TestConcurrentUse(t *testing.T) {
	const limit, workers, rounds = 4, 8, 20_000
	table := addrlimit.New(addrlimit.Limits{Connections: limit, Places: 100})
	var open [16]atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range rounds {
				k := r.IntN(len(open))
				if table.Admit(key(k), 0) != addrlimit.Counted {
					continue
				}
				if n := open[k].Add(1); n > limit {
					t.Errorf("%d connections, want at most %d", n, limit)
				}
				open[k].Add(-1)
				table.Leave(key(k))
			}
		})
	}
	all.Wait()
	require.Zero(t, table.Addresses())
}

func TestLeaveWithoutAConnection(t *testing.T) {
	table := addrlimit.New(addrlimit.Limits{Connections: 1, Places: 1})
	require.False(t, table.Leave(key(1)))
	require.Zero(t, table.Addresses())
	require.Equal(t, addrlimit.Counted, table.Admit(key(1), 0))
	require.True(t, table.Leave(key(1)))
	require.False(t, table.Leave(key(1)))
	require.Zero(t, table.Addresses())
}

func BenchmarkAdmit(b *testing.B) {
	for _, addresses := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("addresses=%d", addresses), func(b *testing.B) {
			table := addrlimit.New(addrlimit.Limits{PerSecond: 1e9, Burst: 10, Connections: 10, Places: addresses})
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := key(i % addresses)
				i += 7919
				if table.Admit(k, time.Duration(i)) == addrlimit.Counted {
					table.Leave(k)
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		table := addrlimit.New(addrlimit.Limits{Connections: 1, Places: 10_000})
		table.Admit(key(1), 0)
		b.ReportAllocs()
		for b.Loop() {
			table.Admit(key(1), 0)
		}
	})
}
