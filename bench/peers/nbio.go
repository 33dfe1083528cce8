package main

import (
	"net"
	"net/http"
	"time"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"

	"github.com/qi-realtime/ws/bench/control"
)

// nbioServer is the non-blocking server of nbio's examples
// (lesismal/nbio-examples, websocket_1m/server_nbio and websocket/server): an
// nbhttp engine that accepts and parses, a websocket.Upgrader, and WriteMessage
// for each member; concurrent writes are supported, and the bytes that a socket
// does not take are kept, without a bound (MaxWriteBufferSize is 0 by default).
type nbioServer struct {
	rooms[*websocket.Conn]
	host *control.Host
	echo bool
}

func startNBIO(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	logging.SetLevel(logging.LevelError) // standard output is ours
	s := &nbioServer{host: host, echo: cfg.Mode == control.Echo}
	upgrader := s.upgrader()
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _, _ = upgrader.Upgrade(w, r, nil) })
	addr := ""
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network: "tcp", Addrs: []string{"127.0.0.1:0"}, MaxLoad: 1_000_000,
		ReleaseWebsocketPayload: true, Handler: mux, NPoller: cfg.Loops,
		MaxWebsocketFramePayloadSize: maxMessage, // or it would send fragments
		Listen: func(network, at string) (net.Listener, error) {
			ln, err := net.Listen(network, at)
			if err == nil {
				addr = ln.Addr().String()
			}
			return ln, err
		},
	})
	if err := engine.Start(); err != nil {
		return nil, "", err
	}
	return s, addr, nil
}

func (s *nbioServer) upgrader() *websocket.Upgrader {
	u := websocket.NewUpgrader()
	u.KeepaliveTime = time.Hour // of silence; members of a room say nothing
	u.OnOpen(func(*websocket.Conn) { s.clients.Add(1) })
	u.OnMessage(func(c *websocket.Conn, typ websocket.MessageType, payload []byte) {
		if s.echo {
			_ = c.WriteMessage(typ, payload)
			return
		}
		s.host.Handle(nbioClient{s, c}, payload)
	})
	u.OnClose(func(c *websocket.Conn, _ error) {
		s.leave(c)
		s.clients.Add(-1)
	})
	return u
}

// Publish implements control.Server. WriteMessage copies. It may find a
// connection closed, whose members leave: so they are copied first.
func (s *nbioServer) Publish(room int, payload []byte) error {
	for _, c := range s.snapshot(room) {
		_ = c.WriteMessage(websocket.BinaryMessage, payload)
	}
	return nil
}

type nbioClient struct {
	server *nbioServer
	conn   *websocket.Conn
}

// Join implements control.Client.
func (c nbioClient) Join(room int) { c.server.join(c.conn, room) }

// Echo implements control.Client.
func (c nbioClient) Echo(payload []byte) { _ = c.conn.WriteMessage(websocket.BinaryMessage, payload) }
