package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

// TestAPI holds that the types that the tests of client/ts are compiled against are those of this
// server. To write them: go test ./feedserver -run TestAPI -update.
func TestAPI(t *testing.T) {
	m, err := ws.NewManager()
	require.NoError(t, err)
	require.NoError(t, register(m))
	schema.Golden(t, m, "../../client/ts/test/types/feed.gen.ts")
}
