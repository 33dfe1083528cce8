package engine

// dirtyList is the queue of connections with frames to write. Its ring grows
// only with the largest number of connections in it at once.
//
// Loop-confined: use only on the event loop that owns the connections.
type dirtyList struct {
	ring []dirtyConn // its length is a power of two, or 0
	head int
	size int
}

// dirtyConn is a connection on the list, with the value of Shard.offered at its
// arrival.
type dirtyConn struct {
	conn  *Conn
	since uint64
}

// minDirty is the first length of the ring.
const minDirty = 64

func (d *dirtyList) len() int { return d.size }

func (d *dirtyList) empty() bool { return d.size == 0 }

// since returns the value of Shard.offered at the arrival of the first
// connection.
func (d *dirtyList) since() uint64 { return d.ring[d.head].since }

func (d *dirtyList) push(c *Conn, since uint64) {
	if d.size == len(d.ring) {
		d.grow()
	}
	d.ring[(d.head+d.size)&(len(d.ring)-1)] = dirtyConn{c, since}
	d.size++
}

func (d *dirtyList) grow() {
	ring := make([]dirtyConn, max(minDirty, 2*len(d.ring)))
	n := copy(ring, d.ring[d.head:])
	copy(ring[n:], d.ring[:d.head])
	d.ring, d.head = ring, 0
}

func (d *dirtyList) pop() *Conn {
	c := d.ring[d.head].conn
	d.ring[d.head].conn = nil
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.size--
	return c
}
