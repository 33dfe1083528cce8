package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/internal/cluster"
)

func TestOwed(t *testing.T) {
	var o cluster.Owed[int]
	assert.True(t, o.Empty())
	assert.False(t, o.Since(o.Count()))
	before := o.Count()
	o.Add(1)
	o.Add(2)
	o.Add(1)
	assert.False(t, o.Empty())
	assert.True(t, o.Since(o.Count()), "a message after the loss waits for the news")
	assert.False(t, o.Since(before), "a message before it does not")
	topics, all := o.Take()
	assert.ElementsMatch(t, []int{1, 2}, topics)
	assert.False(t, all)
	assert.True(t, o.Empty())
	assert.False(t, o.Since(o.Count()))
}

// TestOwedIsBounded holds that very many topics are all topics.
func TestOwedIsBounded(t *testing.T) {
	var o cluster.Owed[int]
	for i := range 2000 {
		o.Add(i)
	}
	topics, all := o.Take()
	assert.Empty(t, topics)
	assert.True(t, all)
	o.Add(7)
	topics, all = o.Take()
	assert.Equal(t, []int{7}, topics)
	assert.False(t, all)
	o.AddAll()
	_, all = o.Take()
	assert.True(t, all)
}
