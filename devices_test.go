package ws_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// The end of one device takes no longer because its user has many others: the
// lock under which it happens is that of other users, too.
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
