//go:build linux

package server

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// TestServerSettings asserts that settings reach the library.
func TestServerSettings(t *testing.T) {
	cfg := ws.DefaultConfig()
	for _, opt := range managerOptions(&control.Config{
		MaxConnections: 1, Loops: 3, RoomShards: 16, Ring: 32,
		Batch: 128, Queue: 512,
	}) {
		opt(&cfg)
	}
	assert.Equal(t, 3, cfg.Loops)
	assert.Equal(t, 16, cfg.RoomShards)
	assert.Equal(t, 32, cfg.Broadcast.QueueSize)
	assert.Equal(t, 128, cfg.Broadcast.BatchSize)
	assert.Equal(t, 512, cfg.MessageQueueSize)
}
