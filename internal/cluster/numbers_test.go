package cluster_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/internal/cluster"
)

func TestNumbersOfRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := cluster.NewNumbers()
		const ms = 1000 // in microseconds
		next := func(k cluster.Key, want cluster.Stamp) {
			t.Helper()
			assert.Equal(t, want, n.Next(k))
		}
		room, user := cluster.Key{Kind: 1, Name: "a"}, cluster.Key{Kind: 2, Name: "a"}
		next(room, cluster.Stamp{Round: 1, Number: 1})
		<-time.After(5 * time.Millisecond)
		next(room, cluster.Stamp{Round: 1, Number: 2, At: 5 * ms, Before: 5 * ms})
		<-time.After(time.Millisecond)
		next(user, cluster.Stamp{Round: 1, Number: 1, At: 6 * ms})
		n.Undo(room)
		next(room, cluster.Stamp{Round: 1, Number: 2, At: 6 * ms, Before: 6 * ms})
		assert.Equal(t, 2, n.Topics())
		assert.Equal(t, cluster.Stamp{Round: 1, At: 6 * ms, Before: 6 * ms}, n.Round())
		assert.Len(t, n.End(), 11)
		next(room, cluster.Stamp{Round: 2, Number: 1, At: 6 * ms})
		n.Undo(room)
		assert.Len(t, n.End(), 1, "nothing was sent")
		ended := time.Now()
		<-time.After(time.Hour)
		assert.Equal(t, cluster.Stamp{Round: 2, At: 3600*1000*ms + 6*ms, Before: 900 * 1000 * ms}, n.StampOf(2, ended))
	})
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
