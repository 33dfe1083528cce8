package redisbroker

import (
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws"
)

// slots is the number of slots of a Redis Cluster.
const slots = 16384

// channels maps topics to channels and back. Immutable.
type channels struct {
	prefixes []string // by partition: the prefix and the hash tag
}

func newChannels(cfg *Config) channels {
	if !cfg.Sharded {
		return channels{[]string{cfg.Prefix}}
	}
	var c channels
	for _, tag := range tags(cfg.Partitions) {
		c.prefixes = append(c.prefixes, cfg.Prefix+"{"+tag+"}")
	}
	return c
}

// tags returns a hash tag for each of count equal ranges of slots: the smallest number whose slot
// lies in the range. The numbers from 0 on, without a choice, crowd on few servers.
func tags(count int) []string {
	all := make([]string, count)
	for number, missing := 0, count; missing > 0; number++ {
		tag := strconv.Itoa(number)
		if p := int(crc16(tag)) % slots * count / slots; all[p] == "" {
			all[p] = tag
			missing--
		}
	}
	return all
}

// crc16 returns the hash of Redis Cluster: CRC-16/XMODEM.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// kinds has the letter of each kind of topic.
var kinds = [...]byte{
	ws.TopicAll: 'a', ws.TopicRoom: 'r', ws.TopicUser: 'u', ws.TopicNode: 'n', ws.TopicHistory: 'h',
}

// of returns the channel of a topic and its partition.
func (c channels) of(t ws.Topic) (channel string, partition int) {
	if len(c.prefixes) > 1 {
		h := fnv.New32a()
		_, _ = h.Write([]byte{kinds[t.Kind]})
		_, _ = h.Write([]byte(t.Name))
		partition = int(h.Sum32() % uint32(len(c.prefixes)))
	}
	return c.prefixes[partition] + "." + string(kinds[t.Kind]) + "." + t.Name, partition
}

// topic returns the topic of a channel of the partition.
func (c channels) topic(channel string, partition int) (t ws.Topic, ok bool) {
	rest, ok := strings.CutPrefix(channel, c.prefixes[partition])
	if !ok || len(rest) < 3 || rest[0] != '.' || rest[2] != '.' {
		return ws.Topic{}, false
	}
	for kind, letter := range kinds {
		if rest[1] == letter {
			return ws.Topic{Kind: ws.TopicKind(kind), Name: rest[3:]}, true
		}
	}
	return ws.Topic{}, false
}

// history returns the keys of a room, of its meta hash and of its stream, and the channel of its
// history. They have one hash tag.
func (c channels) history(room string) (keys []string, channel string) {
	channel, partition := c.of(ws.Topic{Kind: ws.TopicHistory, Name: room})
	return []string{c.prefixes[partition] + metaKey + room, c.prefixes[partition] + streamKey + room}, channel
}

// The middle of the keys of a room.
const (
	metaKey   = ".m."
	streamKey = ".s."
)

// metas is the keys of meta hashes of one partition, and the places of their rooms.
type metas struct {
	keys   []string
	places []int
}

// metas divides rooms by partition, and into parts of size.
func (c channels) metas(rooms []string, size int) (parts []metas) {
	open := make([]metas, len(c.prefixes)) // the last part of each partition
	for i, room := range rooms {
		_, p := c.of(ws.Topic{Kind: ws.TopicHistory, Name: room})
		open[p].keys = append(open[p].keys, c.prefixes[p]+metaKey+room)
		open[p].places = append(open[p].places, i)
		if len(open[p].keys) == size {
			parts = append(parts, open[p])
			open[p] = metas{}
		}
	}
	for _, part := range open {
		if len(part.keys) > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}
