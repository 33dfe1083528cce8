//go:build linux

package server

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

func testManager(t *testing.T) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager(ws.WithLoops(1))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Shutdown(context.Background())) })
	return m
}

// TestNumberedFirst asserts that a publisher does not publish to a room that another one is creating:
// both messages are of the history.
func TestNumberedFirst(t *testing.T) {
	m := testManager(t)
	creates, goOn, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var calls atomic.Int32
	n := numbered{options: []ws.RoomOption{before(ws.WithHistory(ws.History{}), func() {
		if calls.Add(1) == 1 {
			close(creates)
			<-goOn
		}
	})}}
	go func() { first <- n.publish(m, 1, make([]byte, control.StampBytes)) }() // ends with the test
	<-creates
	assert.NoError(t, n.publish(m, 1, make([]byte, control.StampBytes)))
	close(goOn)
	require.NoError(t, <-first)
	at, err := m.RoomPosition(roomName(1))
	require.NoError(t, err)
	assert.EqualValues(t, 2, at.Offset)
}

// before returns an option that calls f before it has its effect.
func before[O ~func(T), T any](option O, f func()) O {
	return func(o T) {
		f()
		option(o)
	}
}

// TestNumberedPlain asserts that a message that gets no position is an error.
func TestNumberedPlain(t *testing.T) {
	m := testManager(t)
	var n numbered
	assert.ErrorIs(t, n.publish(m, 1, make([]byte, control.StampBytes)), errPlain)
}
