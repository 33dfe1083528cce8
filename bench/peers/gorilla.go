package main

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"github.com/qi-realtime/ws/bench/control"
)

// The values of gorilla's chat example (examples/chat/client.go of v1.5.3).
const (
	gorillaWriteWait  = 10 * time.Second
	gorillaPongWait   = 60 * time.Second
	gorillaPingPeriod = gorillaPongWait * 9 / 10
)

// gorillaServer is the hub of examples/chat: one goroutine owns all rooms, and
// each connection has a goroutine that reads and one that writes the messages
// that the hub puts into its channel. A broadcast is a PreparedMessage, as the
// package's documentation advises for messages to many connections.
type gorillaServer struct {
	counts
	host *control.Host

	join       chan gorillaJoin
	unregister chan *gorillaClient
	broadcast  chan gorillaBroadcast
	direct     chan gorillaDirect

	rooms map[int]map[*gorillaClient]bool // the hub's
}

type gorillaJoin struct {
	*gorillaClient
	room int
}

type gorillaBroadcast struct {
	room    int
	message *websocket.PreparedMessage
}

type gorillaDirect struct {
	*gorillaClient
	message *websocket.PreparedMessage
}

// gorillaClient stands between a connection and the hub.
type gorillaClient struct {
	server *gorillaServer
	conn   *websocket.Conn
	send   chan *websocket.PreparedMessage
	joined []int // the hub's
	closed bool  // the hub's: send is closed
}

func startGorilla(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	s := &gorillaServer{
		host: host, join: make(chan gorillaJoin), unregister: make(chan *gorillaClient),
		broadcast: make(chan gorillaBroadcast), direct: make(chan gorillaDirect),
		rooms: make(map[int]map[*gorillaClient]bool),
	}
	handle := s.serveHub(queueSize(cfg))
	switch cfg.Mode {
	case control.Echo:
		handle = s.serveLoop(gorillaEcho)
	case control.JSON:
		handle = s.serveLoop(gorillaJSON)
	}
	addr, err := serveHTTP(handle)
	go s.run() // ends with the process
	return s, addr, err
}

// serveLoop is examples/echo: the handler itself reads and writes.
func (s *gorillaServer) serveLoop(answer func(*websocket.Conn) error) http.HandlerFunc {
	var upgrader websocket.Upgrader // use default options
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		s.clients.Add(1)
		defer s.clients.Add(-1)
		for answer(conn) == nil {
		}
	}
}

func gorillaEcho(conn *websocket.Conn) error {
	typ, message, err := conn.ReadMessage()
	if err != nil {
		return err
	}
	return conn.WriteMessage(typ, message)
}

// run is the hub's goroutine.
func (s *gorillaServer) run() {
	for {
		select {
		case j := <-s.join:
			s.add(j)
		case c := <-s.unregister:
			s.remove(c)
		case b := <-s.broadcast:
			for c := range s.rooms[b.room] {
				s.send(c, b.message)
			}
		case d := <-s.direct:
			s.send(d.gorillaClient, d.message)
		}
	}
}

// send queues a message, or ends a client that has too many queued.
func (s *gorillaServer) send(c *gorillaClient, message *websocket.PreparedMessage) {
	if c.closed {
		return
	}
	select {
	case c.send <- message:
	default:
		s.dropped.Add(1)
		s.remove(c)
	}
}

func (s *gorillaServer) add(j gorillaJoin) {
	if j.closed || s.rooms[j.room][j.gorillaClient] {
		return
	}
	if s.rooms[j.room] == nil {
		s.rooms[j.room] = make(map[*gorillaClient]bool)
	}
	s.rooms[j.room][j.gorillaClient] = true
	j.joined = append(j.joined, j.room)
	s.members.Add(1)
}

// remove ends a client: its writer sends the queued messages, and closes.
func (s *gorillaServer) remove(c *gorillaClient) {
	if c.closed {
		return
	}
	c.closed = true
	for _, room := range c.joined {
		delete(s.rooms[room], c)
		s.members.Add(-1)
	}
	close(c.send)
}

// Publish implements control.Server.
func (s *gorillaServer) Publish(room int, payload []byte) error {
	message, err := websocket.NewPreparedMessage(websocket.BinaryMessage, payload)
	if err != nil {
		return err
	}
	s.broadcast <- gorillaBroadcast{room, message}
	return nil
}

// serveHub is the serveWs of examples/chat.
func (s *gorillaServer) serveHub(queue int) http.HandlerFunc {
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &gorillaClient{server: s, conn: conn, send: make(chan *websocket.PreparedMessage, queue)}
		s.clients.Add(1)
		// Allow collection of memory referenced by the caller by doing all work
		// in new goroutines; they end with the connection.
		go c.writePump()
		go c.readPump()
	}
}

func (c *gorillaClient) readPump() {
	defer func() {
		c.server.unregister <- c
		_ = c.conn.Close()
		c.server.clients.Add(-1)
	}()
	c.conn.SetReadLimit(maxMessage)
	_ = c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait)) })
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		c.server.host.Handle(c, message)
	}
}

func (c *gorillaClient) writePump() {
	ticker := time.NewTicker(gorillaPingPeriod)
	defer func() {
		ticker.Stop()
		_ = c.conn.Close()
	}()
	for {
		select {
		case message, ok := <-c.send:
			_ = c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
			if !ok {
				_ = c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if err := c.conn.WritePreparedMessage(message); err != nil {
				return
			}
		case <-ticker.C:
			_ = c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
			if err := c.conn.WriteMessage(websocket.PingMessage, nil); err != nil {
				return
			}
		}
	}
}

// Join implements control.Client.
func (c *gorillaClient) Join(room int) { c.server.join <- gorillaJoin{c, room} }

// Echo implements control.Client. The hub may close the channel at any time, so
// it is the hub that sends.
func (c *gorillaClient) Echo(payload []byte) {
	if message, err := websocket.NewPreparedMessage(websocket.BinaryMessage, payload); err == nil {
		c.server.direct <- gorillaDirect{c, message}
	}
}
