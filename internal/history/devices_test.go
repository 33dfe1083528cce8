package history_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/history"
)

// modelDevice is a device of a plain map.
type modelDevice struct {
	ack         uint64
	connections int
	seen        time.Duration
}

// victim returns the device without a connection that was not seen for the longest time.
func victim(devices map[string]*modelDevice) (name string, ok bool) {
	for n, d := range devices {
		if d.connections == 0 && (!ok || d.seen < devices[name].seen) {
			name, ok = n, true
		}
	}
	return name, ok
}

// TestDevicesAgainstAMap runs random operations on Devices and on a plain map.
func TestDevicesAgainstAMap(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		most := 1 + rng.IntN(6)
		d, m := history.NewDevices(most), map[string]*modelDevice{}
		now := time.Duration(0)
		for range 400 {
			now++ // so that no two devices were seen at the same time
			name := fmt.Sprint(rng.IntN(most + 4))
			switch known := m[name]; rng.IntN(8) {
			case 0, 1, 2:
				joinBoth(t, &d, m, name, most, uint64(rng.IntN(100)), now)
			case 3, 4:
				if known != nil && known.connections > 0 {
					known.connections--
					known.seen = now
					d.Leave(name, now)
				}
			case 5, 6:
				offset := uint64(rng.IntN(100))
				require.Equal(t, known != nil && offset > known.ack, d.Ack(name, offset, now))
				if known != nil {
					known.ack, known.seen = max(known.ack, offset), now
				}
			case 7:
				before := now - time.Duration(rng.IntN(60))
				maps.DeleteFunc(m, func(_ string, e *modelDevice) bool { return e.connections == 0 && e.seen <= before })
				d.Forget(before)
			}
			checkDevices(t, &d, m, most)
		}
	}
}

func joinBoth(
	t *testing.T, d *history.Devices, m map[string]*modelDevice, name string, most int, ack uint64, now time.Duration,
) {
	t.Helper()
	if m[name] == nil && len(m) == most {
		old, ok := victim(m)
		require.Equal(t, ok, d.Takes(name))
		if !ok {
			d.Join(name, ack, now)
			return
		}
		delete(m, old)
	}
	require.True(t, d.Takes(name))
	if m[name] == nil {
		m[name] = &modelDevice{ack: ack}
	}
	m[name].connections++
	m[name].seen = now
	d.Join(name, ack, now)
}

func checkDevices(t *testing.T, d *history.Devices, m map[string]*modelDevice, most int) {
	t.Helper()
	require.Equal(t, len(m), d.Len())
	require.LessOrEqual(t, d.Bytes(), int64(2*most*50))
	least, known := d.Least()
	require.Equal(t, len(m) > 0, known)
	first := true
	var want uint64
	for i := range most + 4 {
		name := fmt.Sprint(i)
		acked, ok := d.Acked(name)
		require.Equal(t, m[name] != nil, ok)
		if !ok {
			continue
		}
		require.Equal(t, m[name].ack, acked)
		if first || acked < want {
			want, first = acked, false
		}
	}
	require.Equal(t, want, least)
}

func TestDevicesWithoutADevice(t *testing.T) {
	d := history.NewDevices(2)
	d.Leave("none", 1)
	require.False(t, d.Ack("none", 5, 1))
	d.Forget(10)
	require.Zero(t, d.Bytes())
	d.Join("a", 7, 1)
	d.Leave("a", 2)
	d.Forget(1)
	require.Equal(t, 1, d.Len())
	d.Forget(2)
	require.Zero(t, d.Bytes())
}
