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

// inboxRun has publishers send to one inbox while devices read, acknowledge, stall, die and come back.
type inboxRun struct {
	t       *testing.T
	s       *harness.Server
	seed    uint64
	padding string

	mu   sync.Mutex
	lost map[uint64]bool // offsets that EventUndelivered has named; guarded by mu
}

// inboxDevice is the model of a device.
type inboxDevice struct {
	*harness.Member
	name      string
	way       harness.Way
	rng       *rand.Rand
	known     bool            // it has joined before
	fresh     bool            // the next message is the first one after a join without a position
	first     uint64          // the offset behind which it has begun when it joined first
	confirmed uint64          // the server has stored this acknowledgement
	sent      uint64          // the greatest acknowledgement that the server may have stored
	got       map[uint64]bool // offsets of the messages that it has read
	missed    map[uint64]bool // offsets that it was told of in gaps, and had not acknowledged
}

// TestInboxProperty checks the guarantee of inboxes in docs/delivery.md: each message is delivered to
// each device until it is acknowledged, in order, and not afterwards; and each message that is
// dropped before is named by one EventUndelivered.
func TestInboxProperty(t *testing.T) {
	for _, size := range []int{40, 10_000} {
		t.Run(fmt.Sprintf("%d messages are kept", size), func(t *testing.T) {
			r := &inboxRun{t: t, seed: rand.Uint64(), padding: strings.Repeat("x", 1500), lost: map[uint64]bool{}}
			t.Logf("seed %d", r.seed)
			r.s = harness.Start(t, ws.WithInbox(ws.Inbox{Size: size, Bytes: -1, TTL: time.Hour}), func(c *ws.Config) {
				c.Authenticate = harness.ByQuery
				c.Loops, c.SendBuffer, c.UnsentBytes, c.MessageQueueSize = 4, 32<<10, 4096, 30
			})
			require.NoError(t, ws.HandleJoin(r.s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
				return nil, nil
			}))
			r.s.Subscribe(ws.EventUndelivered, func(e ws.Event) { r.noteLost(e.Data.(ws.Undelivered)) })
			r.run(size)
		})
	}
}

func (r *inboxRun) noteLost(u ws.Undelivered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Equal(r.t, u.Next-u.After-1, u.Count)
	assert.Equal(r.t, ws.UndeliveredFull, u.Reason)
	for offset := u.After + 1; offset < u.Next; offset++ {
		assert.False(r.t, r.lost[offset], "%d is lost twice", offset)
		r.lost[offset] = true
	}
}

func (r *inboxRun) run(size int) {
	const publishers, messages, devices = 3, 250, 4
	ctx, stop := context.WithCancel(context.Background())
	var publishing, reading sync.WaitGroup
	for range publishers {
		publishing.Go(func() { r.publish(messages) })
	}
	all := make([]*inboxDevice, devices)
	for i := range all {
		d := &inboxDevice{
			name: fmt.Sprint("d", i), way: []harness.Way{harness.Native, harness.NetHTTP}[i%2],
			rng: rand.New(rand.NewPCG(r.seed, uint64(i))), got: map[uint64]bool{}, missed: map[uint64]bool{},
		}
		all[i] = d
		reading.Go(func() { r.live(ctx, d) })
	}
	publishing.Wait()
	stop()
	reading.Wait()
	if r.t.Failed() {
		return
	}
	r.check(all, publishers*messages, size)
}

func (r *inboxRun) publish(messages int) {
	for range messages {
		_, err := r.s.PublishToInbox(context.Background(), "42", "n", r.padding)
		assert.NoError(r.t, err)
		if rand.IntN(3) == 0 { // bursts, between which the devices can acknowledge
			<-time.After(time.Duration(rand.IntN(10)) * time.Millisecond)
		}
	}
}

// live is the life of a device; at its end it reads and acknowledges all.
func (r *inboxRun) live(ctx context.Context, d *inboxDevice) {
	r.connect(d, false)
	defer func() { d.Close() }() // of the last connection
	for ctx.Err() == nil {
		ok := true
		switch n := d.rng.IntN(1000); {
		case n < 5: // it does not read for a while
			<-time.After(time.Duration(d.rng.IntN(50)) * time.Millisecond)
		case n < 15: // it reloads, or loses its connection
			d.Close()
			<-time.After(time.Duration(d.rng.IntN(20)) * time.Millisecond)
			r.connect(d, n < 8)
		case n < 300:
			r.acknowledge(d, d.Position.Offset-min(d.Position.Offset, uint64(d.rng.IntN(3))), n < 150)
		default:
			ok = r.take(d)
		}
		if !ok || r.t.Failed() {
			return
		}
	}
	r.finish(d)
}

// finish reloads, reads all, and acknowledges it.
func (r *inboxRun) finish(d *inboxDevice) {
	d.Close()
	r.connect(d, false)
	at, err := r.s.RoomPosition("@user:42")
	if !assert.NoError(r.t, err) {
		return
	}
	for d.Position.Offset < at.Offset || d.fresh && d.Position.Offset == 0 {
		if !r.take(d) {
			return
		}
	}
	r.acknowledge(d, at.Offset, false)
	for d.confirmed < at.Offset {
		if !r.take(d) {
			return
		}
	}
}

// connect joins on a new connection, from the position if since is set.
func (r *inboxRun) connect(d *inboxDevice, since bool) {
	c, err := r.s.TryDial(d.way, "user=42")
	if !assert.NoError(r.t, err) {
		return
	}
	fields := fmt.Sprintf(`"device":%q`, d.name)
	if d.Member == nil {
		d.Member = &harness.Member{Room: "@user:42"}
	}
	d.Client = c
	if since && d.known {
		d.fresh = false
		d.Join(fields + "," + d.Since())
		return
	}
	d.Position, d.fresh = ws.Position{}, true
	if d.Join(fields) == 0 {
		r.begin(d, d.Position.Offset)
	}
}

// begin notes the offset at which a device without a position has begun.
func (r *inboxRun) begin(d *inboxDevice, offset uint64) {
	d.fresh = false
	if !d.known {
		d.known, d.first, d.confirmed, d.sent = true, offset, offset, offset
	}
	assert.GreaterOrEqual(r.t, offset, d.confirmed, "a message that was acknowledged")
	assert.LessOrEqual(r.t, offset, d.sent, "a message that was not acknowledged")
}

// acknowledge sends an acknowledgement, which may be below earlier ones.
func (r *inboxRun) acknowledge(d *inboxDevice, offset uint64, notify bool) {
	if d.fresh {
		return
	}
	d.sent = max(d.sent, offset)
	id := ""
	if !notify {
		id = fmt.Sprint(offset)
	}
	d.Ack(id, offset)
}

// take reads one message, or none if none comes soon, and compares it.
func (r *inboxRun) take(d *inboxDevice) bool {
	if d.R.Buffered() == 0 {
		_ = d.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := d.R.Peek(1)
		_ = d.SetReadDeadline(time.Now().Add(10 * harness.Patience))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return true
		}
	}
	f, err := harness.ReadFrame(d.R)
	if !assert.NoError(r.t, err) {
		return false
	}
	var e harness.Envelope
	if !assert.NoError(r.t, json.Unmarshal(f.Payload, &e)) {
		return false
	}
	if e.RequestID != "" {
		var offset uint64
		_, _ = fmt.Sscan(e.RequestID, &offset)
		d.confirmed = max(d.confirmed, offset)
		return assert.Equal(r.t, 200, e.Code, "%+v", e)
	}
	return r.follow(d, f.Payload, &e)
}

// follow notes a message or a gap.
func (r *inboxRun) follow(d *inboxDevice, payload []byte, e *harness.Envelope) bool {
	if e.Event != "ws.gap" {
		if d.fresh {
			r.begin(d, d.Position.Offset)
		}
		msg, err := d.Follow(payload)
		d.got[msg.Offset] = true
		return assert.NoError(r.t, err)
	}
	var g ws.RoomGap
	if !assert.NoError(r.t, json.Unmarshal(e.Data, &g)) {
		return false
	}
	if d.fresh {
		d.Position.Offset = g.After
		r.begin(d, g.After)
	}
	for offset := max(g.After, d.sent) + 1; offset < g.Next; offset++ {
		d.missed[offset] = true
	}
	_, err := d.Follow(payload)
	return assert.NoError(r.t, err)
}

func (r *inboxRun) check(devices []*inboxDevice, messages, size int) {
	harness.Eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return uint64(len(r.lost)) == r.s.Stats().InboxUndelivered
	}, "an event for each loss")
	harness.Eventually(r.t, func() bool { return len(r.s.GetRoomMembers("@user:42")) == 0 }, "all have left")
	r.mu.Lock()
	defer r.mu.Unlock()
	var missed int
	for _, d := range devices {
		for offset := range d.missed {
			assert.True(r.t, r.lost[offset], "%s was told of %d", d.name, offset)
		}
		missed += len(d.missed)
		for offset := d.first + 1; offset <= uint64(messages); offset++ {
			require.True(r.t, d.got[offset] || r.lost[offset], "%s lacks %d", d.name, offset)
		}
	}
	r.t.Logf("%d lost, %d named in gaps", len(r.lost), missed)
	if size > messages {
		assert.Empty(r.t, r.lost)
		assert.Zero(r.t, missed)
	}
	assert.Zero(r.t, r.s.Stats().InvalidAcks)
	c := &harness.Member{Client: r.s.Dial(harness.Native, "user=42"), Room: "@user:42"}
	require.Zero(r.t, c.Join(`"device":"d0"`), "all is acknowledged")
	assert.Zero(r.t, r.s.Stats().HistoryMemory, "and dropped")
}
