package client

// Position is a place in the history of a room: the offset of the last message that was
// delivered, in an epoch. The epoch changes when the history begins anew, such as after a
// restart of the server; it is empty in a room without history. Immutable.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset int64  `json:"offset"`
}

// Gap names messages of a room that the client will not read: those with offsets
// between After and Next, exclusive. Load the state of the room anew, or show the user how
// many messages are missing. Immutable.
type Gap struct {
	Room  string
	Epoch string // of Next; the new one if Reason is "epoch"
	After int64  // without meaning if Reason is "epoch"
	Next  int64  // 0 if messages without an offset are lost
	// Reason is "expired": the history no longer has the messages. "slow": this client was too
	// slow. "epoch": the history has begun anew. "broker": messages were possibly lost between
	// servers. "moved": messages were possibly lost with the old connection in a move. "unknown": a message is
	// missing, and the server has not named it.
	Reason string
}

// Lost returns the number of offsets in the gap, or 0 if it is unknown: the epoch changed, or
// the messages have no offsets.
// With some stores offsets have holes, so fewer messages may be missing.
func (g Gap) Lost() int64 {
	if g.Reason == "epoch" {
		return 0
	}
	return max(0, g.Next-g.After-1)
}

// cursor checks the order of a room's messages. Guarded by Client.mu.
type cursor struct {
	Position
	// known is false until the position before the next message is certain: in a room without
	// history, and before the first replayed message of a join without since.
	known bool
	// anew is true from the answer to a join until the gap that follows it, if the history began
	// anew after the join was sent: the old connection has named the new epoch meanwhile.
	anew bool
}

// message moves the cursor to the message with an offset and its predecessor. It reports
// whether the message is new, and returns the gap before it, or nil.
func (c *cursor) message(offset, prev int64) (isNew bool, gap *Gap) {
	switch {
	case c.known && offset <= c.Offset:
		return false, nil
	case c.known && prev > c.Offset:
		gap = &Gap{Epoch: c.Epoch, After: c.Offset, Next: prev + 1, Reason: "unknown"}
	}
	c.Offset, c.known = offset, true
	return true, gap
}

// gap moves the cursor behind a gap of the server. It returns the part that is news, and
// reports whether there is one.
func (c *cursor) gap(g Gap) (Gap, bool) {
	anew := c.anew
	c.anew = false
	if c.known && g.Epoch == c.Epoch && (g.Reason != "epoch" || anew) { // else the offset was beyond the head
		if g.Next-1 <= c.Offset {
			return g, false
		}
		g.After = max(g.After, c.Offset)
	}
	c.Position, c.known = Position{g.Epoch, g.Next - 1}, true
	return g, true
}
