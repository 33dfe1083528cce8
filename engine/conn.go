package engine

import (
	"net/netip"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"

	"github.com/qi-realtime/ws/codec"
)

// Owner is the user of a connection. It receives the events of the connection's
// life in this order: one OnOpen, messages, one OnClose. All three run on the
// connection's event loop and must not block.
type Owner interface {
	OnOpen()
	// OnMessage receives a whole text or binary message. The payload is
	// borrowed: it is valid until OnMessage returns.
	OnMessage(op codec.Opcode, payload []byte)
	// OnEnding reports that the connection is about to close: the peer's close
	// frame has come, or the peer broke the protocol, before our side began to
	// close, or the connection retires. If it returns false, the connection
	// closes only after Conn.ResumeInOrder, or after Config.CloseTimeout, because
	// earlier messages are still being handled and their answers must be sent.
	OnEnding() (ready bool)
	// Handling reports whether the caller is the handler of a message of the
	// connection, on a goroutine that is not an event loop. Safe for concurrent
	// use.
	Handling() bool
	// OnClosing reports that the close handshake has begun: nothing more is
	// queued for the peer or handed over from it. It is not called if the
	// connection ends at once.
	OnClosing()
	// OnClose reports the end of the connection and its cause.
	OnClose(end CloseInfo)
}

// Conn is one connection, tied to one event loop for life. Embed it by value in
// its Owner, which Handler.Owner finds by the address of the Conn; an idle
// connection then costs this struct and gnet's own state. A test holds it within
// 112 bytes.
//
// Its methods are the life of one connection: reading, queueing, writing, closing.
// State that the connections of a loop share is the shard's.
//
// Exported methods are safe for concurrent use, except for those whose names end in
// InLoop. So are the methods of send.go and bounds.go, variant, and the accessors of
// the lazy state, because senders use them off the loop. The others are loop-confined.
type Conn struct {
	// Immutable after the connection is attached to its loop, peer after its request is read.
	shard *Shard
	gc    netConn
	fd    int32
	peer  peerIPv4 // see setPeer

	controls uint16 // loop-confined: pings and pongs within the tick of lastLife. It fills a gap

	// Atomic.
	state  atomic.Uint32
	queued [dataLanes]atomic.Uint64  // for the bounds: frames<<queuedShift | bytes; LaneNormal also has blockedBit
	lazy   atomic.Pointer[lazyState] // nil without such parts

	// Loop-confined.
	out        *queue // nil while nothing is pending
	in         codec.Decoder
	next, prev *Conn  // wheel
	deadline   uint32 // wheel, in ticks
	lastLife   uint32 // tick of the last sign of life, on the presence clock
	generation uint32 // of fd, for the writability poller; rises with each connection
	flags      connFlags
}

// connFlags is a set of conditions of a connection.
type connFlags uint32

const (
	scheduled      connFlags = 1 << iota // is in the wheel
	dirty                                // is in shard.dirty
	blocked                              // waits for writability; is in the shard's heap of blocked connections
	slow                                 // OnSlow has reported it as a slow consumer
	admitting                            // the upgrade request is being decided off the loop
	opened                               // OnOpen was called
	pendingClose                         // its close is pending
	gotClose                             // the peer's close frame has come
	lingering                            // inbound bytes have no effect; waits for the peer's FIN
	pausedByOwner                        // PauseInLoop was called
	pausedByTasks                        // tasks of its last message wait beside a ring
	pausedByQueue                        // the queue is beyond its bounds
	pausedEarly                          // has sent much before the answer of the handshake
	unwatched                            // the loop's epoll does not wait for its bytes
	awaited                              // is in shard.spaceWaits
	overdue                              // its pong is overdue; is in shard.overdue
	favored                              // is in shard.favored
	pausedByBudget                       // its unfinished message exceeds the InboundBudget
	unfinished                           // has an unfinished message; is in shard.unfinished
	uncounted                            // came while the engine stops; is not in Engine.open
	walked                               // was visited by the last walk, or by each second one; see walk
	withheld                             // HoldInLoop was called
	pausedByShare                        // its last read has inflated its share
	halfClosed                           // the peer's FIN has come, and answers are on their way; see keepHalfClosed
	counted                              // it counts for its address; see AdmitAddress
	turnedAway                           // its address is beyond its limits; it is refused behind its request
	awaitsPong                           // a ping is on its way whose pong has not come
	awaitsProxy                          // its peer has yet to send the header of the PROXY protocol
	unreported                           // its peer is unknown, or has named no client: its header lines name none, either
	noticed                              // it was told to move, and has Retirement.Settle for that
	retired                              // our side closes it because it retires; its messages are still handed over
	forced                               // a drain without a pace closes it
)

// is, set and unset are loop-confined like the flags.
func (c *Conn) is(f connFlags) bool { return c.flags&f != 0 }
func (c *Conn) set(f connFlags)     { c.flags |= f }
func (c *Conn) unset(f connFlags)   { c.flags &^= f }

// lazyState holds the parts of a connection that an idle one needs only with
// TLS, with compression, or over IPv6. Immutable: it is replaced as a whole.
type lazyState struct {
	tls     *tlsConn        // nil for a plain connection
	deflate *deflate        // permessage-deflate; nil if not negotiated. Set before the connection is open
	end     *CloseInfo      // set when closing begins
	peer    *netip.AddrPort // for IPv6; see setPeer
}

var noLazyState lazyState

// lazyState returns the lazy state of c, an empty one if c has none. Safe for
// concurrent use.
func (c *Conn) lazyState() *lazyState {
	if x := c.lazy.Load(); x != nil {
		return x
	}
	return &noLazyState
}

func (c *Conn) tls() *tlsConn         { return c.lazyState().tls }
func (c *Conn) deflate() *deflate     { return c.lazyState().deflate }
func (c *Conn) end() *CloseInfo       { return c.lazyState().end }
func (c *Conn) setTLS(t *tlsConn)     { c.updateLazy(func(x *lazyState) { x.tls = t }) }
func (c *Conn) setEnd(end *CloseInfo) { c.updateLazy(func(x *lazyState) { x.end = end }) }

// updateLazy replaces the lazy state with a changed copy. Safe for
// concurrent use.
func (c *Conn) updateLazy(change func(*lazyState)) {
	for {
		old := c.lazy.Load()
		next := new(lazyState)
		if old != nil {
			*next = *old
		}
		change(next)
		if *next == (lazyState{}) {
			next = nil
		}
		if c.lazy.CompareAndSwap(old, next) {
			return
		}
	}
}

// attach makes c, or a new connection if c is nil, the owner of gc's traffic.
func (s *Shard) attach(gc netConn, c *Conn, from *enrolling, a arrival) (action gnet.Action) {
	s.enter()
	defer s.leave()
	defer func() {
		if r := recover(); r != nil {
			s.eng.reportPanic("open", r)
			action = gnet.Close
		}
	}()
	if c == nil {
		c = s.eng.handler.NewConn()
	}
	c.shard, c.gc, c.fd = s, gc, int32(gc.Fd())
	if a.peer.IsValid() {
		c.setPeer(a.peer)
	} else {
		c.setSocketPeer(gc.RemoteAddr())
	}
	s.driver.adopt(c, a.foreign)
	c.generation = s.eng.generations.Add(1)
	c.lastLife = s.presence.ticks
	s.wheel.walk.setVisited(c)
	c.set(a.flags)
	gc.SetContext(c)
	s.eng.open.Add(1)
	s.stats.connections.add(1)
	if from == nil {
		c.expectTLS()
		c.expectProxyHeader()
		s.beginHandshake(c)
		s.wheel.schedule(c, s.eng.after(s.eng.cfg.HandshakeTimeout))
		if a.refusal != nil {
			return c.turnAway(a.refusal)
		}
		return gnet.None
	}
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.HeartbeatInterval))
	c.open(from.response, from.began)
	if len(from.early) > 0 {
		c.decode(from.early)
	}
	c.transport().proceed(c) // bytes that crypto/tls has read already
	return gnet.None
}

// owner returns the owner of c, which must be attached. Safe for concurrent use.
func (c *Conn) owner() Owner { return c.shard.eng.handler.Owner(c) }

// Opened reports whether the connection is or was open.
func (c *Conn) Opened() bool {
	switch c.state.Load() {
	case stateHandshake:
		return false
	case stateClosed:
		return !c.end().unopened
	}
	return true
}

// Open reports whether messages can be sent and received.
func (c *Conn) Open() bool { return c.state.Load() == stateOpen }

// Closed reports whether the connection is closed or closing.
func (c *Conn) Closed() bool { return c.state.Load() >= stateClosing }

// Shard returns the shard that owns the connection, nil before it is open.
func (c *Conn) Shard() *Shard { return c.shard }

// QueuedBytes returns the bytes of the data frames that wait to be sent, with
// those reserved for a send in transit to the connection's loop; 0 once the
// connection has ended.
func (c *Conn) QueuedBytes() (n int) {
	if c.state.Load() == stateClosed {
		return 0
	}
	for lane := range c.queued {
		n += int(c.queued[lane].Load() & queuedBytesMask)
	}
	return n
}

// QueuedMessages returns the number of the frames that QueuedBytes counts.
func (c *Conn) QueuedMessages() (n int) {
	if c.state.Load() == stateClosed {
		return 0
	}
	for lane := range c.queued {
		n += int(queuedFrames(c.queued[lane].Load()))
	}
	return n
}

// Blocked reports whether the connection's socket is full.
func (c *Conn) Blocked() bool { return c.state.Load() != stateClosed && c.blockedNow() }

// TLS reports whether the connection is encrypted.
func (c *Conn) TLS() bool { return c.tls() != nil }

// takesMessages reports whether the messages of the peer are handed over.
func (c *Conn) takesMessages() bool { return c.state.Load() == stateOpen || c.is(retired) }

// takesDataInLoop reports whether data may still be queued. It differs from the
// state, which a Close elsewhere changes at once: frames published before that
// Close must still be sent.
func (c *Conn) takesDataInLoop() bool { return c.is(opened) && c.end() == nil }
