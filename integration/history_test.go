package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// historyRun has publishers send to one room with a history while members come, stall, break off and
// come back. The oracle is the list of the published messages by offset.
type historyRun struct {
	t       *testing.T
	s       *harness.Server
	size    int // messages that are kept
	padding string

	mu        sync.Mutex
	published map[uint64]string // text by offset
}

// TestHistoryTiles checks the guarantee of docs/delivery.md: the messages that a member gets and
// the gaps that it is told of make up the list of the published messages, in order, each once.
func TestHistoryTiles(t *testing.T) {
	for _, size := range []int{20, 10_000} {
		t.Run(fmt.Sprintf("%d messages are kept", size), func(t *testing.T) {
			r := &historyRun{t: t, size: size, padding: strings.Repeat("x", 2000), published: map[uint64]string{}}
			r.s = harness.Start(t, func(c *ws.Config) {
				c.Loops, c.SendBuffer, c.UnsentBytes, c.MessageQueueSize = 4, 32<<10, 4096, 30
			})
			options := []ws.RoomOption{ws.WithHistory(ws.History{Size: size, Bytes: -1, TTL: time.Hour})}
			require.NoError(t, ws.HandleJoin(r.s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
				return options, nil
			}))
			_, err := r.s.CreateRoom("r", nil, options...)
			require.NoError(t, err)
			r.run()
		})
	}
}

func (r *historyRun) run() {
	const publishers, members, messages = 4, 12, 400
	seed := rand.Uint64()
	r.t.Logf("seed %d", seed)
	ctx, stop := context.WithCancel(context.Background())
	var publishing, reading sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() { r.publish(p, messages) })
	}
	results := make([]*harness.Member, members)
	for i := range members {
		way := []harness.Way{harness.Native, harness.NetHTTP}[i%2]
		results[i] = &harness.Member{Room: "r"}
		m := results[i]
		m.Client = r.s.Dial(way)
		m.Join("")
		reading.Go(func() { r.follow(ctx, m, way, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	publishing.Wait()
	stop()
	reading.Wait()
	if r.t.Failed() {
		return
	}
	require.Len(r.t, r.published, publishers*messages)
	var gaps int
	for _, m := range results {
		gaps += len(m.Gaps)
		for _, g := range m.Gaps {
			assert.Contains(r.t, []ws.GapReason{ws.GapSlow, ws.GapExpired}, g.Reason)
			assert.LessOrEqual(r.t, g.Next+uint64(r.size), uint64(publishers*messages)+1, "the newest messages are kept")
		}
	}
	if r.size > publishers*messages {
		assert.Zero(r.t, gaps, "all messages are kept")
	}
	r.t.Logf("%d gaps, %+v", gaps, r.s.Stats().Replayed)
}

// publish sends numbered messages, and notes their offsets.
func (r *historyRun) publish(publisher, messages int) {
	for i := range messages {
		text := fmt.Sprintf("%d/%d/%s", publisher, i, r.padding)
		at, err := r.s.PublishEvent(context.Background(), "r", "n", text)
		if !assert.NoError(r.t, err) {
			return
		}
		r.mu.Lock()
		assert.Empty(r.t, r.published[at.Offset], "an offset of two messages")
		r.published[at.Offset] = text
		r.mu.Unlock()
	}
}

// follow reads as a member, with pauses, breaks and new connections, until all that was published
// when ctx has ended is read.
func (r *historyRun) follow(ctx context.Context, m *harness.Member, way harness.Way, rng *rand.Rand) {
	defer func() { m.Close() }() // of the last connection
	for {
		if ctx.Err() != nil {
			at, err := r.s.RoomPosition("r")
			if !assert.NoError(r.t, err) || m.Position.Offset == at.Offset {
				return
			}
		}
		switch n := rng.IntN(1000); {
		case n < 20 && ctx.Err() == nil: // a member that does not read for a while
			<-time.After(time.Duration(rng.IntN(50)) * time.Millisecond)
			continue
		case n < 25 && ctx.Err() == nil:
			if !r.comeBack(m, way) {
				return
			}
			continue
		}
		if !r.take(m) {
			return
		}
	}
}

// take reads one message, or none if none comes soon, and compares it.
func (r *historyRun) take(m *harness.Member) bool {
	if m.R.Buffered() == 0 {
		_ = m.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := m.R.Peek(1)
		_ = m.SetReadDeadline(time.Now().Add(10 * harness.Patience))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		}
		if !assert.NoError(r.t, err) {
			return false
		}
	}
	f, err := harness.ReadFrame(m.R)
	if !assert.NoError(r.t, err) {
		return false
	}
	msg, err := m.Follow(f.Payload)
	if !assert.NoError(r.t, err) {
		return false
	}
	if msg.Event == "ws.gap" {
		return true
	}
	var text string
	if !assert.NoError(r.t, json.Unmarshal(msg.Data, &text)) {
		return false
	}
	// The publisher notes the offset when PublishEvent has returned, so a member may be ahead.
	ok := harness.Holds(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.published[msg.Offset] != ""
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return assert.True(r.t, ok) && assert.Equal(r.t, r.published[msg.Offset], text)
}

// comeBack breaks the connection off, and joins from the position on another one.
func (r *historyRun) comeBack(m *harness.Member, way harness.Way) bool {
	m.Close()
	c, err := r.s.TryDial(way)
	if !assert.NoError(r.t, err) {
		return false
	}
	m.Client = c
	m.Rejoin()
	return true
}
