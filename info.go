package ws

import (
	"math/bits"
	"net/http"
	"slices"
	"time"
)

// ClientInfo describes a client for pages and logs; see Client.Info.
type ClientInfo struct {
	ID         string
	User       string // as Client.User returns it
	RemoteAddr string // as Client.RemoteAddr returns it

	Loop            int       // index of its event loop
	Since           time.Time // time of the connection, before its handshake; exact to a hundredth of its age
	Path            string    // the entry of Config.Paths that it came to; "" through HandleUpgrade
	TLS             bool      // encrypted; false behind a proxy that ends TLS
	Subprotocol     string    // as Client.Subprotocol returns it
	Compressed      bool      // permessage-deflate was negotiated
	ContextTakeover bool      // with it, messages to the client refer to earlier ones

	RoundTrip      time.Duration // as Client.RoundTrip returns it
	QueuedBytes    int           // of messages that wait to be sent
	QueuedMessages int           // number of these messages
	Blocked        bool          // its socket is full
	Unhandled      int           // received messages that wait for a handler
	Rooms          int           // number of its rooms
	Closing        bool          // the connection is closed or closing
}

// Info returns a description of the client at this moment. It never waits.
func (c *Client) Info() ClientInfo {
	deflate := c.conn.Deflate()
	info := ClientInfo{
		ID: c.ID, User: c.User(), RemoteAddr: c.RemoteAddr(),
		Loop: c.conn.Shard().Index(), Since: c.conn.Since(), Path: c.requestedPath(), TLS: c.conn.TLS(),
		Subprotocol: c.Subprotocol(), Compressed: deflate.ServerBits != 0, ContextTakeover: deflate.ServerTakeover,
		QueuedBytes: c.conn.QueuedBytes(), QueuedMessages: c.conn.QueuedMessages(), Blocked: c.conn.Blocked(),
		Closing: c.conn.Closed(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	info.RoundTrip = c.roundTrip.duration()
	if c.room != nil {
		info.Rooms = 1
	}
	if x := c.lazy; x != nil {
		info.Rooms += x.rooms.len()
		if x.mailbox != nil {
			info.Unhandled = x.mailbox.len()
		}
	}
	return info
}

// requestedPath returns the entry of Config.Paths that the client came to.
func (c *Client) requestedPath() string {
	if c.path == 0 {
		return ""
	}
	return c.manager.cfg.Paths[c.path-1]
}

// pathOf returns the place of the entry of Paths that serves r, counted from 1; 0 for none and
// beyond 255.
func (c *Config) pathOf(r *http.Request) uint8 {
	i := slices.IndexFunc(c.Paths, func(p string) bool { return matchPath(p, targetPath(r)) })
	if i > 254 {
		return 0
	}
	return uint8(i + 1)
}

// RoundTrip returns the time from the last ping that the client has answered to its answer,
// or 0 if it has answered none. The time includes the wait behind bytes that the
// kernel holds for the client. A client that lies about it harms only this figure.
func (c *Client) RoundTrip() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roundTrip.duration()
}

// roundTrip is a duration in 16 bits, exact to 0.1 %: 11 bits of microseconds, to be shifted
// to the left by the 5 highest bits. 0 is none.
type roundTrip uint16

func newRoundTrip(d time.Duration) roundTrip {
	const mantissa = 11
	micros := uint64(max(d.Microseconds(), 1))
	shift := min(max(bits.Len64(micros)-mantissa, 0), 31)
	return roundTrip(shift<<mantissa) | roundTrip(min(micros>>shift, 1<<mantissa-1))
}

func (t roundTrip) duration() time.Duration {
	return time.Duration(t&(1<<11-1)) << (t >> 11) * time.Microsecond
}
