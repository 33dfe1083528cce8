package engine

// dirtyList is the queue of connections with something to write.
type dirtyList struct {
	conns []*Conn
	head  int
}

func (d *dirtyList) len() int { return len(d.conns) - d.head }

func (d *dirtyList) empty() bool { return d.head == len(d.conns) }

func (d *dirtyList) push(c *Conn) { d.conns = append(d.conns, c) }

func (d *dirtyList) pop() *Conn {
	c := d.conns[d.head]
	d.conns[d.head] = nil
	d.head++
	if d.head == len(d.conns) {
		d.conns, d.head = d.conns[:0], 0
	}
	return c
}
