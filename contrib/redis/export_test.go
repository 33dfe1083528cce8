package redisbroker

import "github.com/qi-realtime/ws"

// Tags returns the hash tags of partitions.
func Tags(count int) []string { return tags(count) }

// Slot returns the slot of a hash tag.
func Slot(tag string) int { return int(crc16(tag)) % slots }

// ChannelOf returns the channel of a topic, and the topic of that channel.
func ChannelOf(cfg Config, t ws.Topic) (channel string, back ws.Topic, ok bool) {
	c := newChannels(&cfg)
	channel, p := c.of(t)
	back, ok = c.topic(channel, p)
	return channel, back, ok
}
