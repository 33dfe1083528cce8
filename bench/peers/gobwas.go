package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gobwas/ws"

	"github.com/qi-realtime/ws/bench/control"
)

// gobwasServer is gobwas/ws with the parts that its README leaves to its user: the
// zero-copy upgrade of "Zero-copy upgrade" on the accepted connection, the
// lower-level read loop of "Usage" behind a bufio.Reader, and a writer as in the
// author's article "A Million WebSockets and Go": a goroutine that exists while
// there is something to write. It sends all that is queued with one writev. A
// queue is bounded; a client that exceeds it is closed.
type gobwasServer struct {
	rooms[*gobwasClient]
	host  *control.Host
	queue int
}

type gobwasClient struct {
	server *gobwasServer
	conn   net.Conn

	mu      sync.Mutex
	queue   [][]byte // guarded by mu: frames
	writing bool     // guarded by mu: a goroutine sends the queue
}

// gobwasReadBuffer is the size of a connection's read buffer.
const gobwasReadBuffer = 4 << 10

var errClosed = errors.New("peers: closed by the client")

func startGobwas(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	s := &gobwasServer{host: host, queue: queueSize(cfg)}
	serve := s.serveRooms
	if cfg.Mode == control.Echo {
		serve = gobwasEcho
	}
	go s.accept(ln, serve) // ends with the process
	return s, ln.Addr().String(), nil
}

func (s *gobwasServer) accept(ln net.Listener, serve func(net.Conn)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer conn.Close()
			if _, err := ws.Upgrade(conn); err != nil {
				return
			}
			s.clients.Add(1)
			defer s.clients.Add(-1)
			serve(conn)
		}()
	}
}

// gobwasEcho answers the messages of one read with one write.
func gobwasEcho(conn net.Conn) {
	r := bufio.NewReaderSize(conn, gobwasReadBuffer)
	w := bufio.NewWriterSize(conn, gobwasReadBuffer)
	var payload []byte
	for {
		h, p, err := gobwasRead(r, payload)
		if err != nil {
			return
		}
		payload = p
		if h.OpCode == ws.OpPong {
			continue
		}
		if h.OpCode == ws.OpPing {
			h.OpCode = ws.OpPong
		}
		h.Masked, h.Mask = false, [4]byte{}
		if ws.WriteHeader(w, h) != nil {
			return
		}
		if _, err := w.Write(payload); err != nil {
			return
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// gobwasRead reads one frame, into buf if that is large enough. Like the example
// it puts no fragments together: the load generator sends none.
func gobwasRead(r *bufio.Reader, buf []byte) (ws.Header, []byte, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return h, nil, err
	}
	if err := ws.CheckHeader(h, ws.StateServerSide); err != nil {
		return h, nil, err
	}
	if h.Length > maxMessage || !h.Fin {
		return h, nil, ws.ErrProtocolContinuationUnexpected
	}
	if int64(cap(buf)) < h.Length {
		buf = make([]byte, h.Length)
	}
	buf = buf[:h.Length]
	if _, err := io.ReadFull(r, buf); err != nil {
		return h, nil, err
	}
	ws.Cipher(buf, h.Mask, 0)
	if h.OpCode == ws.OpClose {
		return h, nil, errClosed
	}
	return h, buf, nil
}

func (s *gobwasServer) serveRooms(conn net.Conn) {
	c := &gobwasClient{server: s, conn: conn}
	defer s.leave(c)
	r := bufio.NewReaderSize(conn, gobwasReadBuffer)
	var payload []byte
	for {
		h, p, err := gobwasRead(r, payload)
		if err != nil {
			return
		}
		payload = p
		switch h.OpCode {
		case ws.OpPing:
			c.send(ws.MustCompileFrame(ws.NewPongFrame(bytes.Clone(payload))))
		case ws.OpPong:
		default:
			s.host.Handle(c, payload)
		}
	}
}

// send queues a frame, and starts a writer if there is none.
func (c *gobwasClient) send(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= c.server.queue {
		c.server.dropped.Add(1)
		_ = c.conn.Close()
		return
	}
	c.queue = append(c.queue, frame)
	if !c.writing {
		c.writing = true
		go c.write() // ends when nothing is queued, or with the connection
	}
}

// write sends queued messages until there are no more.
func (c *gobwasClient) write() {
	var batch net.Buffers
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.writing = false
			c.mu.Unlock()
			return
		}
		batch, c.queue = c.queue, batch[:0]
		c.mu.Unlock()
		frames := batch // WriteTo consumes it
		if _, err := frames.WriteTo(c.conn); err != nil {
			_ = c.conn.Close() // and the queue fills; nothing is sent any more
			return
		}
		clear(batch)
	}
}

// Publish implements control.Server.
func (s *gobwasServer) Publish(room int, payload []byte) error {
	frame, err := ws.CompileFrame(ws.NewBinaryFrame(payload))
	if err != nil {
		return err
	}
	s.each(room, func(c *gobwasClient) { c.send(frame) })
	return nil
}

// Join implements control.Client.
func (c *gobwasClient) Join(room int) { c.server.join(c, room) }

// Echo implements control.Client.
func (c *gobwasClient) Echo(payload []byte) {
	if frame, err := ws.CompileFrame(ws.NewBinaryFrame(payload)); err == nil {
		c.send(frame)
	}
}
