package main

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/qi-realtime/ws/bench/control"
)

// coderWriteTimeout is the timeout of the chat example.
const coderWriteTimeout = 5 * time.Second

// coderServer is the chat example of the repository (internal/examples/chat,
// v1.8.15): the handler's goroutine writes the messages of a buffered
// channel, and a subscriber whose channel is full is closed as too slow. There,
// messages come over HTTP and CloseRead reads control frames in a goroutine;
// here that goroutine reads messages. The channel takes as many as gorilla's,
// not the 16 of an example that is limited to ten messages a second.
type coderServer struct {
	rooms[*coderSubscriber]
	host  *control.Host
	queue int
}

type coderSubscriber struct {
	server *coderServer
	conn   *websocket.Conn
	msgs   chan []byte
}

func startCoder(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	s := &coderServer{host: host, queue: queueSize(cfg)}
	handle := s.subscribe
	if cfg.Mode == control.Echo {
		handle = coderEcho
	}
	addr, err := serveHTTP(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		s.clients.Add(1)
		defer s.clients.Add(-1)
		c.SetReadLimit(maxMessage)
		handle(c)
	})
	return s, addr, err
}

// coderEcho reads and writes like the repository's echo example.
func coderEcho(c *websocket.Conn) {
	ctx := context.Background()
	for {
		typ, message, err := c.Read(ctx)
		if err != nil || c.Write(ctx, typ, message) != nil {
			return
		}
	}
}

func (s *coderServer) subscribe(c *websocket.Conn) {
	sub := &coderSubscriber{server: s, conn: c, msgs: make(chan []byte, s.queue)}
	defer s.leave(sub)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go sub.read(ctx, cancel) // ends with the connection
	for {
		select {
		case msg := <-sub.msgs:
			if err := sub.write(ctx, msg); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (sub *coderSubscriber) read(ctx context.Context, cancel context.CancelFunc) {
	defer cancel()
	for {
		_, message, err := sub.conn.Read(ctx)
		if err != nil {
			return
		}
		sub.server.host.Handle(sub, message)
	}
}

// write is the example's writeTimeout.
func (sub *coderSubscriber) write(ctx context.Context, msg []byte) error {
	ctx, cancel := context.WithTimeout(ctx, coderWriteTimeout)
	defer cancel()
	return sub.conn.Write(ctx, websocket.MessageBinary, msg)
}

// send queues a message, or closes a subscriber that has too many queued.
func (sub *coderSubscriber) send(msg []byte) {
	select {
	case sub.msgs <- msg:
	default:
		sub.server.dropped.Add(1)
		go func() { // ends after the close handshake's time limit
			_ = sub.conn.Close(websocket.StatusPolicyViolation, "connection too slow to keep up with messages")
		}()
	}
}

// Publish implements control.Server.
func (s *coderServer) Publish(room int, payload []byte) error {
	msg := bytes.Clone(payload)
	s.each(room, func(sub *coderSubscriber) { sub.send(msg) })
	return nil
}

// Join implements control.Client.
func (sub *coderSubscriber) Join(room int) { sub.server.join(sub, room) }

// Echo implements control.Client.
func (sub *coderSubscriber) Echo(payload []byte) { sub.send(bytes.Clone(payload)) }
