package presence

import (
	"encoding/binary"
	"errors"
)

// Delta is the changes of the part of one node since its delta of version Prev. Versions of a node
// grow.
type Delta struct {
	Prev    uint64 // 0 if the part was empty, and there was none before
	Version uint64
	Clients int // of the part
	Joins   []string
	Leaves  []string
}

// Page is a piece of the part of one node.
type Page struct {
	Room    string
	Version uint64 // of the last delta before it
	Clients int    // of the part
	Index   int    // 0 is the first
	Last    bool
	Users   []string
}

const (
	// MaxKey is the greatest length of the key of a user.
	MaxKey     = 256
	maxMessage = 32 << 10 // bytes of keys in a message
)

// ErrMalformed says that bytes are no message of this package.
var ErrMalformed = errors.New("presence: malformed message")

// Append appends the encoded delta to b.
func (d *Delta) Append(b []byte) []byte {
	b = appendNumbers(b, d.Prev, d.Version, uint64(d.Clients))
	return appendKeys(appendKeys(b, d.Joins), d.Leaves)
}

// Decode decodes b, which is borrowed.
func (d *Delta) Decode(b []byte) error {
	c := cut{b: b}
	*d = Delta{Prev: c.number(), Version: c.number(), Clients: c.count(), Joins: c.keys(), Leaves: c.keys()}
	c.bad = c.bad || d.Version <= d.Prev
	return c.end()
}

// Append appends the encoded page to b.
func (p *Page) Append(b []byte) []byte {
	var last uint64
	if p.Last {
		last = 1
	}
	b = appendString(b, p.Room)
	b = appendNumbers(b, p.Version, uint64(p.Clients), uint64(p.Index), last)
	return appendKeys(b, p.Users)
}

// Decode decodes b, which is borrowed.
func (p *Page) Decode(b []byte) error {
	c := cut{b: b}
	*p = Page{
		Room: c.text(len(b)), Version: c.number(), Clients: c.count(), Index: c.count(), Last: c.number() == 1,
		Users: c.keys(),
	}
	c.bad = c.bad || p.Version == 0
	return c.end()
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendKeys(b []byte, keys []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, key := range keys {
		b = appendString(b, key)
	}
	return b
}

// cut takes the parts of a message off its beginning. Not safe for concurrent use.
type cut struct {
	b   []byte
	bad bool
}

func (c *cut) number() uint64 {
	n, size := binary.Uvarint(c.b)
	if size <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[size:]
	return n
}

// count takes a number that fits into an int, with space for the sum of many.
func (c *cut) count() int {
	n := c.number()
	if n > 1<<40 {
		c.bad = true
		return 0
	}
	return int(n)
}

// text takes a string of up to most bytes.
func (c *cut) text(most int) string {
	n := c.number()
	if n > uint64(min(most, len(c.b))) {
		c.bad, c.b = true, nil
		return ""
	}
	s := string(c.b[:n])
	c.b = c.b[n:]
	return s
}

func (c *cut) keys() (keys []string) {
	n := c.number()
	if n > uint64(len(c.b)) { // a key has a byte at least
		c.bad = true
		return nil
	}
	for range n {
		key := c.text(MaxKey)
		c.bad = c.bad || key == ""
		if c.bad {
			return nil
		}
		keys = append(keys, key)
	}
	return keys
}

func (c *cut) end() error {
	if c.bad || len(c.b) > 0 {
		return ErrMalformed
	}
	return nil
}
