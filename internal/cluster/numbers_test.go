package cluster_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/internal/cluster"
)

func TestNumbersOfRounds(t *testing.T) {
	n := cluster.NewNumbers()
	next := func(k cluster.Key, round, number uint32) {
		t.Helper()
		gotRound, got := n.Next(k)
		assert.Equal(t, [2]uint32{round, number}, [2]uint32{gotRound, got})
	}
	room, user := cluster.Key{Kind: 1, Name: "a"}, cluster.Key{Kind: 2, Name: "a"}
	next(room, 1, 1)
	next(room, 1, 2)
	next(user, 1, 1)
	n.Undo(room)
	next(room, 1, 2)
	round, topics := n.Round()
	assert.Equal(t, [2]uint32{1, 2}, [2]uint32{round, topics})
	assert.Len(t, n.End(), 8)
	next(room, 2, 1)
	n.Undo(room)
	assert.Empty(t, n.End(), "nothing was sent")
}

func TestNumbersAreBounded(t *testing.T) {
	n := cluster.NewNumbers()
	for i := 0; !n.Full(0); i++ {
		n.Next(cluster.Key{Name: strings.Repeat("x", i)})
	}
	size := len(n.End())
	assert.Greater(t, size, 30<<10)
	assert.Less(t, size, 34<<10)
	assert.False(t, n.Full(0))
	n.Next(cluster.Key{Name: "r"})
	assert.True(t, n.Full(16))
}
