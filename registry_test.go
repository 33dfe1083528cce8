package ws_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// A client that is refused for its ID takes no place from another, not even for
// a moment.
func TestRefusedClientsTakeNoPlace(t *testing.T) {
	m, err := ws.NewManager()
	require.NoError(t, err)
	client := func(id string) *ws.Client {
		c := ws.NewTestClient(m)
		c.ID = id
		return c
	}
	const workers, rounds = 1, 100_000
	r := ws.NewRegistry()
	require.NoError(t, r.Admit(client("taken"), workers+1))
	var working, refusing sync.WaitGroup
	var done atomic.Bool
	for range 3 {
		refusing.Go(func() {
			again := client("taken")
			for !done.Load() {
				err := r.Admit(again, workers+1)
				if !assert.Error(t, err) {
					return
				}
			}
		})
	}
	for i := range workers {
		working.Go(func() {
			c := client(fmt.Sprint("worker ", i))
			for range rounds {
				if !assert.NoError(t, r.Admit(c, workers+1), "there is a place for each") {
					return
				}
				r.Remove(c)
			}
		})
	}
	working.Wait()
	done.Store(true)
	refusing.Wait()
	assert.ErrorIs(t, r.Admit(client("taken"), workers+1), ws.ErrClientIDExists)
	require.NoError(t, r.Admit(client("last"), workers+1))
	assert.ErrorIs(t, r.Admit(client("one more"), workers+1), ws.ErrTooManyConnections)
}

// TestClientTableAgainstAMap runs random operations against a map.
func TestClientTableAgainstAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	table := ws.NewClientTable()
	model := map[string]*ws.Client{}
	for round := range 6 {
		ids := 10 << (2 * (round % 4)) // grows and shrinks
		for range 20_000 {
			id := fmt.Sprint("client-", rng.IntN(ids))
			switch rng.IntN(3) {
			case 0:
				c := &ws.Client{ID: id}
				inserted := table.Insert(c)
				require.Equal(t, model[id] == nil, inserted)
				if inserted {
					model[id] = c
				}
			case 1:
				if c := model[id]; c != nil {
					table.Remove(c)
					delete(model, id)
				} else {
					table.Remove(&ws.Client{ID: id})
				}
			default:
				require.Same(t, model[id], table.Get(id))
			}
			require.Equal(t, len(model), table.Size())
		}
		for id, c := range model {
			require.Same(t, c, table.Get(id))
		}
	}
	for id, c := range model {
		table.Remove(&ws.Client{ID: id}) // another client of that ID takes nothing out
		require.Same(t, c, table.Get(id))
		table.Remove(c)
		require.Nil(t, table.Get(id))
	}
	require.Equal(t, ws.MinTable, table.Slots(), "an empty table gives its memory back")
}

// The end of one device takes no longer because its user has many others: other users need the lock
// under which it happens, too.
func TestDevicesOfAUserAreRemovedInConstantTime(t *testing.T) {
	const few, many = 1_000, 300_000
	quickest := func(devices int) time.Duration {
		r := ws.NewRegistry()
		clients := make([]*ws.Client, devices)
		for i := range clients {
			clients[i] = &ws.Client{UserID: 1}
			r.Opened(clients[i])
		}
		rand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })
		best := time.Duration(1 << 62)
		for batch := range slices.Chunk(clients[:few/2], few/10) {
			start := time.Now()
			for _, c := range batch {
				r.RemoveDevice(c)
			}
			best = min(best, time.Since(start))
		}
		require.Len(t, r.Devices(1), devices-few/2)
		return best
	}
	ofFew, ofMany := quickest(few), quickest(many)
	t.Logf("100 removals: %v of %d devices, %v of %d", ofFew, few, ofMany, many)
	assert.Less(t, ofMany, 100*ofFew, "100 removals of %d devices", many)
}

// TestDevicesAgainstAMap runs random operations against a map.
func TestDevicesAgainstAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	r := ws.NewRegistry()
	model := map[int64][]*ws.Client{}
	for round := range 12 {
		growing := round%2 == 0
		for range 3_000 {
			user := int64(rng.IntN(6)) * 64 // one shard of the registry has them all
			devices := model[user]
			if (rng.IntN(10) < 7) == growing {
				c := &ws.Client{UserID: user}
				r.Opened(c)
				if user != 0 {
					model[user] = append(devices, c)
				}
			} else if len(devices) > 0 {
				i := rng.IntN(len(devices))
				r.RemoveDevice(devices[i])
				model[user] = slices.Delete(devices, i, i+1)
			}
			r.RemoveDevice(&ws.Client{UserID: user}) // another client takes nothing out
		}
		for user, devices := range model {
			require.Len(t, r.Devices(user), len(devices))
			require.True(t, maps.Equal(pointers(devices), pointers(r.Devices(user))))
		}
	}
	for user, devices := range model {
		for _, c := range devices {
			r.RemoveDevice(c)
			r.RemoveDevice(c) // again
		}
		require.Empty(t, r.Devices(user))
	}
}

// pointers makes clients comparable by identity.
func pointers(clients []*ws.Client) map[*ws.Client]bool {
	m := make(map[*ws.Client]bool, len(clients))
	for _, c := range clients {
		m[c] = true
	}
	return m
}
