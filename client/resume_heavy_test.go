//go:build heavy

package client_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestResumeTime cuts 500 clients from the network for a second, and logs the time that each of
// them needs from the end of the cut until it has read the 100 messages that it has missed.
func TestResumeTime(t *testing.T) {
	const clients, messages = 500, 100
	s := startHistory(t)
	_, err := s.CreateRoom("long", nil, ws.WithHistory(ws.History{})) // it stays while nobody is there
	require.NoError(t, err)
	proxy := newCutter(t, s.AddrOf(harness.Native), 1)
	var down atomic.Bool
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if down.Load() {
			return nil, net.ErrClosed
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	done := make(chan time.Time, clients)
	var waiting atomic.Int64
	for range clients {
		c, err := client.New("ws://"+proxy.addr()+"/ws", client.WithDialer(dial), client.WithOnState(func(s client.State) {
			if s.Phase == client.Waiting && s.Err != nil {
				waiting.Add(1)
			}
		}))
		require.NoError(t, err)
		t.Cleanup(func() { closeClient(t, c) })
		c.Room("long").On("number", func(n client.Notify) {
			if n.Position.Offset == messages {
				done <- time.Now()
			}
		})
		require.NoError(t, c.Connect(within(t)))
		_, err = c.Room("long").Join(within(t))
		require.NoError(t, err)
	}
	down.Store(true)
	proxy.cutAll()
	harness.Eventually(t, func() bool { return waiting.Load() >= clients }, "not all are cut")
	for i := range messages {
		_, err := s.PublishEvent(t.Context(), "long", "number", strconv.Itoa(i+1))
		require.NoError(t, err)
	}
	<-time.After(time.Second)
	down.Store(false)
	back := time.Now()
	times := make([]time.Duration, 0, clients)
	for range clients {
		times = append(times, harness.Receive(t, done, "a client does not catch up").Sub(back))
	}
	slices.Sort(times)
	t.Logf("caught up after p50 %v, p99 %v, last %v", times[clients/2], times[clients*99/100], times[clients-1])
}
