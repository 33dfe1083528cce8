package client_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

const inbox = "@user:7"

// startInboxes runs a server with inboxes. Message number i of the inbox of user 7 has the data i.
func startInboxes(t testing.TB) *harness.Server {
	t.Helper()
	s := harness.Start(t, ws.WithInbox(ws.Inbox{Size: 10_000, Bytes: -1}), ws.WithAuthenticate(harness.ByQuery))
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
	return s
}

func publishToInbox(t testing.TB, s *harness.Server, i int) {
	t.Helper()
	p, err := s.PublishToInbox(context.Background(), "7", "number", i)
	assert.NoError(t, err)
	assert.EqualValues(t, i, p.Offset)
}

// reader is one run of a program that reads the inbox.
type reader struct {
	c      *client.Client
	joined client.Joined
	view   *view
}

// read joins the inbox as a device.
func read(t testing.TB, url, device string, opts ...client.JoinOption) *reader {
	t.Helper()
	r := &reader{c: newClient(t, url)}
	room := r.c.Room(inbox)
	r.view = new(view)
	room.On("number", func(n client.Notify) {
		if r.view.read == 0 {
			r.view.position.Offset = n.Position.Offset - 1 // it begins at the acknowledged offset
		}
		r.view.number(t, n)
	})
	room.OnGap(func(g client.Gap) { assert.Fail(t, "a gap", "%+v", g) })
	room.OnLost(func(err error) { assert.NoError(t, err, "the server refuses a join") })
	require.NoError(t, r.c.Connect(within(t)))
	var err error
	r.joined, err = room.Join(within(t), append(opts, client.Device(device))...)
	require.NoError(t, err)
	return r
}

// await waits until the reader has got the message at an offset.
func (r *reader) await(t testing.TB, offset int) {
	t.Helper()
	harness.Eventually(t, func() bool { return r.c.Room(inbox).Position().Offset == int64(offset) },
		"message %d is not read", offset)
}

// first returns the offset of the first message that the ended reader has got.
func (r *reader) first() int { return int(r.view.position.Offset) - r.view.read + 1 }

// TestInbox reads an inbox with two devices, which acknowledge a part.
func TestInbox(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startInboxes(t)
		url := "ws://" + s.AddrOf(w) + "/ws?user=7"
		for i := range 5 {
			publishToInbox(t, s, i+1)
		}
		closeClient(t, read(t, url, "laptop").c) // the server knows the device from now on
		phone := read(t, url, "phone")
		assert.EqualValues(t, 5, phone.joined.Replaying)
		phone.await(t, 5)
		room := phone.c.Room(inbox)
		room.Ack(2)
		room.Ack(3)
		room.Ack(1)
		room.Ack(6) // which it has not got
		closeClient(t, phone.c)
		harness.Eventually(t, func() bool { // the server may still handle the last acknowledgement
			again := read(t, url, "phone")
			again.await(t, 5)
			closeClient(t, again.c)
			return again.first() == 4
		}, "the acknowledgement is lost")
		laptop := read(t, url, "laptop", client.AutoAck())
		laptop.await(t, 5)
		closeClient(t, laptop.c)
		assert.Equal(t, 1, laptop.first())
		harness.Eventually(t, func() bool { // Close may come before the last callback
			again := read(t, url, "laptop", client.AutoAck())
			again.await(t, 5)
			closeClient(t, again.c)
			return again.joined.Replaying == 0
		}, "nothing is acknowledged")

		stranger := newClient(t, "ws://"+s.AddrOf(w)+"/ws?user=8")
		require.NoError(t, stranger.Connect(within(t)))
		_, err := stranger.Room(inbox).Join(within(t))
		var refused *client.ServerError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, 403, refused.Code)
	})
}

// TestInboxAtLeastOnce restarts a program that reads its inbox, again and again, on a network with
// faults and while its connections move: no message is omitted, and each comes once to each run.
func TestInboxAtLeastOnce(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startInboxes(t)
		proxy := newCutter(t, s.AddrOf(w), 11)
		proxy.setRate(0.03)
		url := "ws://" + proxy.addr() + "/ws?user=7"
		var publisher sync.WaitGroup
		total := harness.FewerUnderRace(2000)
		publisher.Go(func() {
			r := rand.New(rand.NewPCG(5, 5))
			for i := range total {
				publishToInbox(t, s, i+1)
				if r.IntN(100) == 0 {
					notice(s)
				}
				<-time.After(time.Duration(r.IntN(1000)) * time.Microsecond)
			}
		})
		done, runs, again := 0, 0, 0 // done: the offset up to which all were read
		for done < total {
			r := read(t, url, "phone", client.AutoAck())
			goal := min(total, done+1+total/20)
			harness.Eventually(t, func() bool { return r.c.Room(inbox).Position().Offset >= int64(goal) },
				"not at %d", goal)
			if runs%2 == 0 { // the program crashes
				proxy.cutAll()
			}
			closeClient(t, r.c)
			assert.LessOrEqual(t, r.first(), done+1, "messages are omitted")
			again += done + 1 - r.first()
			runs++
			done = int(r.view.position.Offset)
		}
		publisher.Wait()
		t.Logf("%d messages, %d of them again, in %d runs with %d faults", total, again, runs, proxy.count())
		proxy.setRate(0)
		harness.Eventually(t, func() bool {
			r := read(t, url, "phone", client.AutoAck())
			r.await(t, total)
			closeClient(t, r.c)
			return r.joined.Replaying == 0
		}, "the last message is not acknowledged")
	})
}
