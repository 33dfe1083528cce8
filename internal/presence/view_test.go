package presence_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/presence"
)

// sorted returns the users of v.
func sorted(v *presence.View) []string { return slices.Sorted(v.All()) }

func TestViewHolds(t *testing.T) {
	v := presence.NewView(false)
	v.Join("a")
	v.Join("a")
	v.Join("b")
	joins, leaves := v.Take()
	assert.ElementsMatch(t, []string{"a", "b"}, joins)
	assert.Empty(t, leaves)
	v.Leave("a", 0)
	v.Leave("b", 5)
	assert.Equal(t, []string{"a", "b"}, sorted(v))
	assert.Equal(t, 1, v.Clients())
	assert.False(t, v.Changed())
	at, ok := v.NextHold()
	require.True(t, ok)
	assert.Equal(t, time.Duration(5), at)
	v.Expire(4)
	assert.Equal(t, 2, v.Users())
	v.Join("b")
	v.Expire(5)
	assert.Equal(t, 2, v.Users(), "who comes back has never left")
	v.Leave("b", 9)
	v.Expire(9)
	v.Leave("a", 0)
	assert.Zero(t, v.Users())
	joins, leaves = v.Take()
	assert.Empty(t, joins)
	assert.ElementsMatch(t, []string{"a", "b"}, leaves)
	v.Join("a")
	v.Leave("a", 20)
	v.EndHolds()
	assert.False(t, v.Changed(), "a user who came and went between two calls")
}

// viewModel is a View in plain maps.
type viewModel struct {
	clients map[string]int
	held    map[string]time.Duration
}

func (m *viewModel) users() []string {
	users := []string{}
	for key, n := range m.clients {
		if _, held := m.held[key]; n > 0 || held {
			users = append(users, key)
		}
	}
	slices.Sort(users)
	return users
}

// TestViewAgainstModel makes random operations. The changes that Take returns must lead from one list
// to the next.
func TestViewAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	v, m := presence.NewView(false), viewModel{map[string]int{}, map[string]time.Duration{}}
	told := map[string]bool{}
	var now time.Duration
	for range 20_000 {
		key := strconv.Itoa(rng.IntN(8))
		switch op := rng.IntN(10); {
		case op < 4:
			v.Join(key)
			m.clients[key]++
			delete(m.held, key)
		case op < 8 && m.clients[key] > 0:
			until := time.Duration(0)
			if m.clients[key]--; rng.IntN(2) == 0 {
				until = now + 10
			}
			if v.Leave(key, until); until > 0 && m.clients[key] == 0 {
				m.held[key] = until
			}
		case op == 8:
			now += time.Duration(rng.IntN(10))
			v.Expire(now)
			for key, until := range m.held {
				if until <= now {
					delete(m.held, key)
				}
			}
		case op == 9:
			joins, leaves := v.Take()
			for _, key := range joins {
				require.False(t, told[key])
				told[key] = true
			}
			for _, key := range leaves {
				require.True(t, told[key])
				delete(told, key)
			}
			require.Len(t, told, v.Users())
		}
		require.Equal(t, m.users(), append([]string{}, sorted(v)...))
		require.Equal(t, len(m.users()), v.Users())
	}
}
