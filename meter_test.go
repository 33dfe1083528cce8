package ws_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestMeter(t *testing.T) {
	var m ws.Meter
	assert.Zero(t, m.Rate(time.Hour))
	now := time.Duration(0)
	for range 60 * 50 { // 50 a second for a minute
		now += 20 * time.Millisecond
		m.Count(now)
	}
	assert.InDelta(t, 50, m.Rate(now), 3)
	assert.InDelta(t, 50, m.Rate(now-time.Second), 3, "a publisher that is a little behind")
	assert.InDelta(t, 50*0.37, m.Rate(now+10*time.Second), 2)
	assert.Less(t, m.Rate(now+5*time.Minute), 1e-6)
	for range 1000 {
		m.Count(now + time.Hour)
	}
	assert.InDelta(t, 100, m.Rate(now+time.Hour), 1, "a burst counts for ten seconds")
}

func TestPublishRate(t *testing.T) {
	n := ws.NewSimnet()
	m := harness.NewManager(t, ws.WithSimnet(n), func(c *ws.Config) { c.ListenAddr = "" })
	go func() { _ = m.Run() }()
	r, err := m.CreateRoom("prices", nil)
	require.NoError(t, err)
	_, err = m.CreateRoom("quiet", nil)
	require.NoError(t, err)
	for range 120 { // half a minute at four messages a second
		n.Advance(250 * time.Millisecond)
		_, err := m.Publish("prices", []byte("x"))
		require.NoError(t, err)
	}
	assert.InDelta(t, 4, r.PublishRate(), 0.4)
	rates := map[string]float64{}
	m.RangeRooms(func(r *ws.Room) bool { rates[r.ID()] = r.PublishRate(); return true })
	assert.Equal(t, map[string]float64{"prices": r.PublishRate(), "quiet": 0}, rates)
	visits := 0
	m.RangeRooms(func(*ws.Room) bool { visits++; return false })
	assert.Equal(t, 1, visits)
}
