package natsbroker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws"
)

const (
	// shards is the number of parts that the subjects of rooms are divided into. All nodes of a
	// cluster have to agree on it.
	shards = 16
	// longestToken bounds an escaped name. A server refuses lines of more than 4,096 bytes
	// (max_control_line) unless it is configured otherwise.
	longestToken = 600
	// longestPrefix bounds Config.Prefix for the same reason.
	longestPrefix = 200
	upperHex      = "0123456789ABCDEF"
)

// subject returns the subject of a topic.
func subject(prefix string, t ws.Topic) string {
	switch t.Kind {
	case ws.TopicRoom:
		return prefix + ".r." + strconv.Itoa(shardOf(t.Name, shards)) + "." + token(t.Name)
	case ws.TopicUser:
		return prefix + ".u." + token(t.Name)
	case ws.TopicNode:
		return prefix + ".n." + token(t.Name)
	default:
		return prefix + ".all"
	}
}

// shardOf returns the shard of a room, between 0 and count-1.
func shardOf(room string, count int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(room))
	return int(h.Sum32() % uint32(count))
}

// token escapes a name. Different names have different tokens.
func token(name string) string {
	if name == "" {
		return "%"
	}
	escapes := 0
	for i := range len(name) {
		if !plain(name[i]) {
			escapes++
		}
	}
	if len(name)+2*escapes > longestToken {
		sum := sha256.Sum256([]byte(name))
		return "%%" + hex.EncodeToString(sum[:])
	}
	if escapes == 0 {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 2*escapes)
	for i := range len(name) {
		if c := name[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// plain reports whether c stands for itself in a token.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// checkPrefix returns an error if the prefix cannot begin a subject.
func checkPrefix(prefix string) error {
	if len(prefix) > longestPrefix {
		return errors.New("natsbroker: the prefix is too long")
	}
	for part := range strings.SplitSeq(prefix, ".") {
		if part == "" || strings.ContainsFunc(part, func(c rune) bool { return c > 127 || !plain(byte(c)) }) {
			return errors.New("natsbroker: a prefix is letters, digits, \"-\" and \"_\", in parts with dots between")
		}
	}
	return nil
}
