package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// simLoop is one event loop of a Simnet. It handles its events in the
// order of their arrival, as gnet's loop handles those of epoll.
//
// push and Execute are safe for concurrent use. Loop-confined otherwise: use only
// on the event loop that owns the connection.
type simLoop struct {
	// Immutable.
	net   *Simnet
	shard *Shard
	index int

	// Loop-confined.
	peers   []simPeer            // by the connection's descriptor
	buf     []byte               // received bytes, as a read would bring them
	in      plaintext            // of reading: the unprocessed rest
	reading *Conn                // connection whose bytes are being processed
	unread  map[int32]*plaintext // unprocessed bytes of other connections, by descriptor: half a request
	stats   struct {
		upgraded, refused, messages, pings, pongs, closes, bytes, writes, full counter
	}

	mu     sync.Mutex
	more   sync.Cond  // on mu; there are events
	events []simEvent // guarded by mu
	closed bool       // guarded by mu
}

// simEvent is an event of a loop.
type simEvent struct {
	kind simEventKind
	n    int32 // the peer's descriptor; the number of peers for simConnect
	data []byte
	task gnet.Runnable
}

type simEventKind uint8

const (
	simTask    simEventKind = iota
	simConnect              // n peers, which send data
	simArrive               // data
	simPong                 // a pong, the frame data
	simClose                // a close frame with the payload data
	simHangUp
	simStall
	simResume
)

// push adds an event. It returns false once the loop has ended.
func (l *simLoop) push(ev simEvent) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.net.pending.Add(1)
	l.events = append(l.events, ev)
	if len(l.events) == 1 {
		l.more.Signal()
	}
	return true
}

// Execute implements driver.
func (l *simLoop) Execute(_ context.Context, task gnet.Runnable) error {
	if !l.push(simEvent{kind: simTask, task: task}) {
		return ErrStopped
	}
	return nil
}

// Enroll implements driver.
func (l *simLoop) Enroll(context.Context, net.Conn) (<-chan gnet.RegisteredResult, error) {
	return nil, errNoSockets
}

var errNoSockets = errors.New("ws: a Simnet takes no sockets")

// run serves the loop until it is closed.
func (l *simLoop) run(bound *sync.WaitGroup) {
	l.shard.bindInLoop()
	bound.Done()
	defer l.endAll() // also if a handler has ended the goroutine
	var batch []simEvent
	for {
		batch = l.take(batch)
		if batch == nil {
			return
		}
		for i := range batch {
			l.handle(&batch[i])
		}
		l.net.done(int64(len(batch)))
	}
}

// endAll closes all open connections.
func (l *simLoop) endAll() {
	for i := range l.peers {
		if c := l.peers[i].conn; c != nil {
			l.end(c, nil)
		}
	}
}

// maxSimEvents bounds the memory that a loop keeps for events.
const maxSimEvents = 1 << 10

// take waits for events and returns them, or nil at the end. spent is its
// previous result.
func (l *simLoop) take(spent []simEvent) []simEvent {
	clear(spent)
	if cap(spent) > maxSimEvents {
		spent = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.events) == 0 && !l.closed {
		l.more.Wait()
	}
	if l.closed {
		return nil
	}
	batch := l.events
	l.events = spent[:0]
	return batch
}

// handle handles an event, also if a handler ends the goroutine.
func (l *simLoop) handle(ev *simEvent) {
	ended := true
	defer l.shard.eng.notice(&ended)
	l.act(ev)
	ended = false
}

// act handles an event. A panic ends only that event.
func (l *simLoop) act(ev *simEvent) {
	defer l.shard.eng.guard("simulated network")
	if ev.kind == simTask {
		_ = ev.task.Run(context.Background())
		return
	}
	if ev.kind == simConnect {
		for range ev.n {
			l.open(ev.data)
		}
		return
	}
	if int(ev.n) >= len(l.peers) || l.peers[ev.n].conn == nil {
		return
	}
	switch p := &l.peers[ev.n]; ev.kind {
	case simArrive:
		l.arrive(p.conn, ev.data)
	case simPong:
		l.arrive(p.conn, ev.data)
	case simClose:
		l.arrive(p.conn, maskedControl(codec.OpClose, ev.data))
	case simHangUp:
		l.end(p.conn, io.EOF)
	case simStall:
		p.stalled = true
	default:
		l.resume(p)
	}
}

// open accepts a peer, which sends request.
func (l *simLoop) open(request []byte) {
	defer l.shard.eng.guard("open")
	l.peers = append(l.peers, simPeer{})
	c := l.shard.eng.handler.NewConn()
	c.fd = int32(len(l.peers) - 1)
	l.peers[c.fd].conn = c
	if l.shard.attach((*simConn)(c), c, nil, arrival{refusal: l.shard.eng.admitPeer(nil, 0, true)}) != gnet.None {
		l.end(c, nil)
		return
	}
	if len(request) > 0 {
		l.arrive(c, request)
	}
}

// arrive processes b, which is borrowed, as received bytes of c.
func (l *simLoop) arrive(c *Conn, b []byte) {
	l.buf = l.buf[:0]
	if before := l.unread[c.fd]; before != nil {
		l.buf = append(l.buf, before.b...)
		delete(l.unread, c.fd)
	}
	l.buf = append(l.buf, b...) // the decoder unmasks in place
	l.reading, l.in.b = c, l.buf
	c.traffic()
	if len(l.in.b) > 0 && l.peers[c.fd].conn == c {
		l.unread[c.fd] = &plaintext{bytes.Clone(l.in.b)}
	}
	l.reading, l.in.b = nil, nil
	l.buf = trimmed(l.buf)
}

// resume makes a peer read again.
func (l *simLoop) resume(p *simPeer) {
	p.stalled = false
	if p.armed {
		p.armed = false
		l.shard.postUrgent((*writableTask)(p.conn))
	}
	if p.fin {
		l.push(simEvent{kind: simHangUp, n: p.conn.fd})
	}
}

// end closes a connection.
func (l *simLoop) end(c *Conn, err error) {
	defer l.shard.eng.guard("close")
	if p := &l.peers[c.fd]; p.conn == c {
		p.conn = nil
		delete(l.unread, c.fd)
		l.shard.detach(c, err)
	}
}

// peersBelow returns the number of the loop's peers with numbers lower than n.
func (l *simLoop) peersBelow(n int) int {
	loops := len(l.net.loops)
	return (n + loops - 1 - l.index) / loops
}

// simPeer is the other end of a connection. It takes 16 bytes.
type simPeer struct {
	conn    *Conn // nil once it has ended
	stalled bool
	armed   bool // the engine waits for its writability
	fin     bool // the engine has sent its FIN
}

// arm records that c waits for its peer to read.
func (l *simLoop) arm(c *Conn) error {
	l.peers[c.fd].armed = true
	return nil
}

// disarm takes arm back.
func (l *simLoop) disarm(c *Conn) { l.peers[c.fd].armed = false }

// halfClose makes the peer close when it reads.
func (l *simLoop) halfClose(c *Conn) {
	p := &l.peers[c.fd]
	p.fin = true
	if !p.stalled {
		l.push(simEvent{kind: simHangUp, n: c.fd})
	}
}

// writev replaces the system call: a peer takes all bytes, or none.
func (l *simLoop) writev(c *Conn, iov []unix.Iovec) (n int, err error) {
	l.stats.writes.add(1)
	if l.peers[c.fd].stalled {
		l.stats.full.add(1)
		return 0, unix.EAGAIN
	}
	for _, v := range iov {
		l.receive(c, unsafe.Slice(v.Base, int(v.Len)))
		n += int(v.Len)
	}
	l.stats.bytes.add(uint64(n))
	return n, nil
}

// write is writev for bytes in one piece.
func (l *simLoop) write(c *Conn, b []byte) (int, error) {
	iov := [1]unix.Iovec{iovec(b)}
	return l.writev(c, iov[:])
}

// receive simulates the peer of c, which gets whole frames or the answer to its
// upgrade request.
func (l *simLoop) receive(c *Conn, b []byte) {
	for len(b) > 0 {
		if b[0]&finBit == 0 { // an HTTP response
			if bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) {
				l.stats.upgraded.add(1)
			} else {
				l.stats.refused.add(1)
			}
			return
		}
		n := codec.FrameSize(b)
		l.receiveFrame(c, b[:n])
		b = b[n:]
	}
}

func (l *simLoop) receiveFrame(c *Conn, frame []byte) {
	if fn := l.net.OnFrame; fn != nil {
		fn(int(c.fd)*len(l.net.loops)+l.index, frame)
	}
	switch codec.Opcode(frame[0] & 0xf) {
	case codec.OpPing:
		l.stats.pings.add(1)
		l.push(simEvent{kind: simPong, n: c.fd, data: maskedControl(codec.OpPong, frame[2:])})
	case codec.OpPong:
		l.stats.pongs.add(1)
	case codec.OpClose:
		l.stats.closes.add(1)
		l.push(simEvent{kind: simClose, n: c.fd, data: bytes.Clone(frame[2:])})
	default:
		l.stats.messages.add(1)
	}
}

// maskedControl returns a client's control frame, with a key of zeros.
func maskedControl(op codec.Opcode, payload []byte) []byte {
	b := make([]byte, 6, 6+len(payload)) // with the masking key 0
	b[0], b[1] = finBit|byte(op), finBit|byte(len(payload))
	return append(b, payload...)
}

// finBit is FIN in the first byte of a frame, and MASK in the second.
const finBit = 0x80

// A simulated peer sends regardless of unwatch: its bytes are held here.
func (l *simLoop) canPause() bool      { return true }
func (l *simLoop) unwatch(*Conn) error { return nil }
func (l *simLoop) watch(*Conn) error   { return nil }

func (l *simLoop) await() {}
func (l *simLoop) wake()  { l.yield() }

// yield implements driver. The loop handles all events in one order.
func (l *simLoop) yield()                      { _ = l.Execute(context.Background(), l.shard) }
func (l *simLoop) ended()                      {}
func (l *simLoop) adopt(*Conn, bool)           {}
func (l *simLoop) boundUnsent(*Conn, int) bool { return false }
func (l *simLoop) hasUnread(*Conn) bool        { return false }
func (l *simLoop) progress(*Conn) progress     { return progress{} }
func (l *simLoop) resetOnClose(*Conn)          {}
func (l *simLoop) drain(*Conn)                 {}
func (l *simLoop) close(c *Conn)               { l.end(c, nil) }
func (l *simLoop) release(*Conn)               {}
func (l *simLoop) handOver(*Conn) (int, error) { return 0, errNoSockets }

// simConn is a connection in the role of gnet's. It costs nothing, because
// its state is in the connection itself and in its loop.
type simConn Conn

func (c *simConn) rest() *plaintext {
	l := c.shard.driver.(*simLoop)
	if l.reading == (*Conn)(c) {
		return &l.in
	}
	if p := l.unread[c.fd]; p != nil {
		return p
	}
	return new(plaintext)
}

// Peek, Discard and InboundBuffered implement unread.
func (c *simConn) Peek(n int) ([]byte, error) { return c.rest().Peek(n) }
func (c *simConn) Discard(n int) (int, error) { return c.rest().Discard(n) }
func (c *simConn) InboundBuffered() int       { return c.rest().InboundBuffered() }

// Fd returns the connection's number on its loop.
func (c *simConn) Fd() int              { return int(c.fd) }
func (c *simConn) SetContext(any)       {}
func (c *simConn) LocalAddr() net.Addr  { return c.shard.driver.(*simLoop).net.addr }
func (c *simConn) RemoteAddr() net.Addr { return c.shard.driver.(*simLoop).net.addr }
