package redisbroker_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

func TestTagsAreSpreadOverTheSlots(t *testing.T) {
	require.Equal(t, 12739, redisbroker.Slot("123456789"), "the example of the Redis Cluster specification")
	for _, count := range []int{1, 3, 16, 1024} {
		tags := redisbroker.Tags(count)
		require.Len(t, tags, count)
		for p, tag := range tags {
			require.Equal(t, p, redisbroker.Slot(tag)*count/16384, tag)
		}
	}
}

func TestChannels(t *testing.T) {
	sharded := redisbroker.Config{Prefix: "p", Sharded: true, Partitions: 4}
	for _, cfg := range []redisbroker.Config{{Prefix: "ws"}, sharded} {
		seen := make(map[string]bool)
		for _, name := range []string{"", "a", "r.a", "{", "}", "{}", "{a}", ".", "\x00\xff"} {
			for kind := ws.TopicAll; kind <= ws.TopicHistory; kind++ {
				topic := ws.Topic{Kind: kind, Name: name}
				channel, back, ok := redisbroker.ChannelOf(cfg, topic)
				require.True(t, ok)
				require.Equal(t, topic, back)
				require.False(t, seen[channel], channel)
				seen[channel] = true
			}
		}
	}
	channel, _, _ := redisbroker.ChannelOf(redisbroker.Config{Prefix: "ws"}, room("a"))
	require.Equal(t, "ws.r.a", channel)
}
