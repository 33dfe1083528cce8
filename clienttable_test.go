package ws_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

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

// A table takes at most 17 bytes for each client, whatever their number.
func TestClientTableTakesFewSlots(t *testing.T) {
	table := ws.NewClientTable()
	for n := 1; n <= 5_000; n++ {
		require.True(t, table.Insert(&ws.Client{ID: fmt.Sprint("client-", n)}))
		if n >= 64 {
			require.LessOrEqual(t, 8*table.Slots(), 17*n, "bytes of %d clients", n)
		}
	}
}
