package engine

import (
	"bytes"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// simPeer is the other end of a connection. It takes 16 bytes.
type simPeer struct {
	conn    *Conn // nil once it has ended
	stalled bool
	armed   bool // the engine waits for its writability
	fin     bool // the engine has sent its FIN
}

// arm records that c waits for its peer to read.
func (l *simLoop) arm(c *Conn) { l.peers[c.fd].armed = true }

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
		l.push(simEvent{kind: simPong, n: c.fd, data: bytes.Clone(frame[2:])})
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
	return append([]byte{finBit | byte(op), finBit | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

// finBit is FIN in the first byte of a frame, and MASK in the second.
const finBit = 0x80

// simConn is a connection in the role of gnet's. It costs nothing, because
// its state is in the connection itself and in its loop.
type simConn Conn

func (c *simConn) rest() *plaintext {
	l := c.shard.sim
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
func (c *simConn) LocalAddr() net.Addr  { return c.shard.sim.net.addr }
func (c *simConn) RemoteAddr() net.Addr { return c.shard.sim.net.addr }
