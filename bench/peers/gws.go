package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/lxzan/gws"

	"github.com/qi-realtime/ws/bench/control"
)

// gwsServer follows the README's "Best Practice" and "Broadcast" (v1.8.9):
// net/http upgrades, ReadLoop has a goroutine of its own, so that the request
// can be collected, and a Broadcaster encodes once and queues for each
// connection, without a bound. Parallel message processing is off, which is the
// default: it would answer a connection's messages out of order. So is
// compression, as for all.
type gwsServer struct {
	gws.BuiltinEventHandler
	rooms[*gws.Conn]
	host *control.Host
	mode string
	time time.Duration // that the handler of requests takes
}

func startGWS(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	s := &gwsServer{host: host, mode: cfg.Mode, time: cfg.HandlerTime}
	upgrader := gws.NewUpgrader(s, &gws.ServerOption{Recovery: gws.Recovery})
	addr, err := serveHTTP(func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r)
		if err != nil {
			return
		}
		go socket.ReadLoop() // ends with the connection
	})
	return s, addr, err
}

// OnOpen and the others implement gws.Event; they run on the connection's
// goroutine.
func (s *gwsServer) OnOpen(*gws.Conn) { s.clients.Add(1) }

// OnClose implements gws.Event.
func (s *gwsServer) OnClose(socket *gws.Conn, _ error) {
	s.leave(socket)
	s.clients.Add(-1)
}

// OnPing implements gws.Event.
func (s *gwsServer) OnPing(socket *gws.Conn, payload []byte) { _ = socket.WritePong(payload) }

// OnMessage implements gws.Event. Errors of a write close the connection by
// themselves.
func (s *gwsServer) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	switch s.mode {
	case control.Echo:
		_ = socket.WriteMessage(message.Opcode, message.Bytes())
	case control.Noop:
		_ = s.answer(socket, message.Bytes())
	default:
		s.host.Handle(gwsClient{s, socket}, message.Bytes())
	}
}

// answer handles a request of the event "noop", with encoding/json.
func (s *gwsServer) answer(socket *gws.Conn, message []byte) error {
	var req request[control.NoopData]
	if err := json.Unmarshal(message, &req); err != nil {
		return err
	}
	if s.time > 0 {
		<-time.After(s.time)
	}
	resp := answer(&req, "noop", control.NoopAnswer{})
	b, err := json.Marshal(&resp)
	if err != nil {
		return err
	}
	return socket.WriteMessage(gws.OpcodeText, b)
}

// Publish implements control.Server. The broadcaster keeps its payload until
// all have it.
func (s *gwsServer) Publish(room int, payload []byte) error {
	b := gws.NewBroadcaster(gws.OpcodeBinary, bytes.Clone(payload))
	s.each(room, func(socket *gws.Conn) { _ = b.Broadcast(socket) })
	return b.Close()
}

type gwsClient struct {
	server *gwsServer
	socket *gws.Conn
}

// Join implements control.Client.
func (c gwsClient) Join(room int) { c.server.join(c.socket, room) }

// Echo implements control.Client.
func (c gwsClient) Echo(payload []byte) { _ = c.socket.WriteMessage(gws.OpcodeBinary, payload) }
