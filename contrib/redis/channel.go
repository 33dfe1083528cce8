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
var kinds = [...]byte{ws.TopicAll: 'a', ws.TopicRoom: 'r', ws.TopicUser: 'u', ws.TopicNode: 'n'}

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
