package natsbroker_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

func TestHeadsOfManyRooms(t *testing.T) {
	s := newStore(t)
	n := newNode(t, "a")
	b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{})
	const count = 1000
	rooms := make([]string, count+2)
	want := make([]ws.Position, len(rooms))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 64)
	for i := range count {
		rooms[i] = fmt.Sprint("room ", i)
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			p, err := b.Append(t.Context(), rooms[i], make([]byte, 100), keep)
			want[i] = p
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rooms[count], rooms[count+1] = "empty", rooms[7]
	want[count+1] = want[7]
	sent := natsbroker.OutMsgs(b.Broker)
	heads, err := b.Heads(t.Context(), rooms)
	require.NoError(t, err)
	require.Less(t, int(natsbroker.OutMsgs(b.Broker)-sent), 100, "16 requests, and some again on a busy machine")
	want[count].Epoch = heads[count].Epoch
	require.NotEmpty(t, heads[count].Epoch)
	require.Equal(t, want, heads)

	topics := make([]ws.Topic, count)
	for i := range topics {
		topics[i] = ws.Topic{Kind: ws.TopicHistory, Name: rooms[i]}
	}
	require.NoError(t, b.Subscribe(topics))
	for range 2 { // the second time they are known
		heads, err = b.Heads(t.Context(), rooms)
		require.NoError(t, err)
		require.Equal(t, want, heads)
	}
	require.NoError(t, b.Unsubscribe(topics[3:4]))
	require.NoError(t, b.Subscribe(topics[3:4])) // known no more
	require.NoError(t, b.Forget(t.Context(), rooms[5]))
	want[6] = appendText(t, connectStore(t, newNode(t, "b"), s.ClientURL(), natsbroker.HistoryConfig{}), rooms[6], "new")
	received := natsbroker.InMsgs(b.Broker)
	heads, err = b.Heads(t.Context(), rooms[:count])
	require.NoError(t, err)
	require.Equal(t, want[:count], heads, "a room keeps its last head")
	news := int(natsbroker.InMsgs(b.Broker) - received)
	require.Less(t, news, 500, "one stream has been asked for all, the others for news")
}
