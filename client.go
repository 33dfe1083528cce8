package ws

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"sync"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Close codes that applications use (RFC 6455 section 7.4.1); 4000 to 4999 are
// free for private use.
const (
	CloseNormal          = int(codec.CloseNormal)
	CloseGoingAway       = int(codec.CloseGoingAway)
	ClosePolicyViolation = int(codec.ClosePolicyViolation)
	CloseInternalError   = int(codec.CloseInternalError)
	CloseServiceRestart  = int(codec.CloseServiceRestart)
	CloseTryAgainLater   = int(codec.CloseTryAgainLater)
	// CloseReplaced closes a connection whose ID another one takes over; see ReplaceOld.
	CloseReplaced = 4409
)

// Client is one connection. It must stay within 176 bytes, which a test holds:
// an idle connection costs this struct, its ID, and the entries of gnet and the
// registry.
//
// Its methods may be called from any goroutine, event loops and handlers
// included, and never wait for the network. Safe for concurrent use.
type Client struct {
	// ID is unique among the connected clients; unguessable unless
	// WithClientID set it. Immutable.
	ID string
	// UserID is the integer of WithUserID, or 0; see User. Immutable.
	UserID int64

	manager *Manager
	conn    engine.Conn

	mu          sync.Mutex
	room        *membership // guarded by mu; the first membership, nil in no room
	lazy        *lazyState  // guarded by mu; nil while empty
	ending      ending      // guarded by mu
	listed      bool        // guarded by the mutex of its registry shard; opened was called
	subprotocol uint8       // index in Config.Subprotocols + 1, or 0; immutable once connected
	traits      traits      // immutable once connected
	invalid     uint8       // invalid messages in a row; only the handler of the running message touches it
	path        uint8       // see requestedPath; immutable once connected
	roundTrip   roundTrip   // guarded by mu; of the last ping
}

// ending holds the steps to the end of a client that have been taken.
type ending uint8

const (
	shut    ending = 1 << iota // by CloseWithCode or Abort: no inbound message is handled
	gone                       // the connection has ended
	working                    // the handler of an idempotent request runs, and keeps the context from ending
)

// traits are properties of a client that its upgrade decides on.
type traits uint8

const (
	noticed traits = 1 << iota // WithReconnectNotice: it understands the notice
	named                      // WithClientID: its ID is the application's
)

// newClient returns a client that is not connected yet.
func (m *Manager) newClient() *Client {
	if m.limits != nil {
		l := &limitedClient{clientOwner: clientOwner{manager: m}}
		return l.client()
	}
	return &Client{manager: m}
}

// Close closes the connection with code 1000, behind the queued messages. See
// CloseWithCode.
func (c *Client) Close() { c.CloseWithCode(CloseNormal, "") }

// CloseWithCode begins the close handshake: it sends the queued messages, then a close
// frame with code and the first 123 bytes of reason. Code 0 or 1005 without a reason sends a
// close frame without a code; any other code that must not be sent (RFC 6455 section 7.4)
// becomes 1000. From then on no message is accepted or handled. The connection ends when the
// client has answered, at the latest after Config.CloseTimeout. CloseWithCode never waits.
// Calls after the first have no effect.
func (c *Client) CloseWithCode(code int, reason string) {
	cc := codec.CloseNormal
	switch {
	case code > 0 && code < 1<<16 && codec.CloseCode(code).Valid():
		cc = codec.CloseCode(code)
	case (code == 0 || code == int(codec.CloseNoStatus)) && reason == "":
		cc = codec.CloseNoStatus
	}
	c.mu.Lock()
	c.ending |= shut
	c.mu.Unlock()
	c.conn.Close(cc, reason)
}

// isShut reports whether the application has closed the client.
func (c *Client) isShut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending&shut != 0
}

// Abort ends the connection at once, without a close handshake: it resets the connection,
// and all bytes that are queued or on their way are lost. Messages that wait for a worker are
// not handled. The code of the disconnect is 1006. Abort never waits, and may follow
// CloseWithCode.
func (c *Client) Abort() {
	c.mu.Lock()
	c.ending |= shut
	c.mu.Unlock()
	c.conn.Abort()
}

// IsClosed reports whether the connection is closed or closing.
func (c *Client) IsClosed() bool { return c.conn.Closed() }

// QueuedBytes returns how many bytes wait to be sent to the client, 0 once its
// connection has ended.
func (c *Client) QueuedBytes() int { return c.conn.QueuedBytes() }

// Context returns a context that ends with the connection, or when Shutdown begins.
// A handler passes it on to the calls that it waits for, so that it does not work for a
// client that has gone: nothing else interrupts a running handler. While the handler of an
// idempotent request runs, the context does not end with the connection, because the client may
// come back for the reply; see WithIdempotency. The first call costs some 200 bytes for as long
// as the client is connected.
func (c *Client) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending&(gone|working) == gone {
		return endedContext
	}
	x := c.needLazyLocked()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancel(c.manager.ctx)
	}
	return x.ctx
}

// endedContext is the context of clients that have gone.
var endedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// RemoteAddr returns the client's network address, "host:port", or "" if it came
// over a Unix socket. Behind a proxy it is the proxy's address, unless WithTrustedProxies or
// WithProxyProtocol is set: then it is the client's, with port 0 if the proxy does not report it.
func (c *Client) RemoteAddr() string {
	if addr := c.conn.RemoteAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// SetMetadata keeps value under key for as long as the client is connected.
func (c *Client) SetMetadata(key string, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.needLazyLocked()
	if x.meta == nil {
		x.meta = make(map[string]any)
	}
	x.meta[key] = value
}

// GetMetadata returns the value that SetMetadata or WithMetadata stored under key.
func (c *Client) GetMetadata(key string) (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lazy == nil {
		return nil, false
	}
	value, ok := c.lazy.meta[key]
	return value, ok
}

// Subprotocol returns the subprotocol that was agreed on in the handshake, one
// of Config.Subprotocols, or "" if there is none.
func (c *Client) Subprotocol() string {
	if c.subprotocol == 0 {
		return ""
	}
	return c.manager.cfg.Subprotocols[c.subprotocol-1]
}

// newClientID returns 132 random bits in 22 letters: they fit into the 24 bytes that the
// allocator gives for a string of this length.
func newClientID() string {
	var b [17]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])[:22]
}

// lazyState holds the parts of a client that most idle clients do not need: an idle client
// in at most one room has none. The client's mutex guards it.
type lazyState struct {
	mailbox *mailbox       // nil while no message waits for a worker
	meta    map[string]any // nil while empty
	user    string         // of WithUser, "" with a Client.UserID; immutable once connected
	rooms   memberships    // all but the first
	first   []string       // IDs of the rooms of WithRooms, until the client is connected
	left    []string       // IDs of the rooms at the beginning of the close
	ctx     context.Context
	cancel  context.CancelFunc // of ctx; both nil until Client.Context is called
}

var lazyStates = sync.Pool{New: func() any { return new(lazyState) }}

// needLazyLocked returns the client's lazy state, and creates it if there is none.
func (c *Client) needLazyLocked() *lazyState {
	if c.lazy == nil {
		c.lazy = lazyStates.Get().(*lazyState)
	}
	return c.lazy
}

// dropLazyLocked gives the client's lazy state back to the pool if it is empty.
func (c *Client) dropLazyLocked() {
	x := c.lazy
	if x == nil || !x.empty() {
		return
	}
	c.lazy = nil
	x.rooms = memberships{} // its array may be large
	lazyStates.Put(x)
}

// empty reports whether the client needs no lazy state.
func (x *lazyState) empty() bool {
	return x.mailbox == nil && x.meta == nil && x.user == "" && x.rooms.len() == 0 &&
		x.first == nil && x.left == nil && x.ctx == nil
}
