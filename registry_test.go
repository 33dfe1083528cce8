package ws_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

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
