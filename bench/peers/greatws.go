package main

import (
	"log/slog"
	"net/http"

	"github.com/antlabs/greatws"

	"github.com/qi-realtime/ws/bench/control"
)

// greatwsServer is the example of greatws's README (v0.2.2): net/http upgrades,
// a MultiEventLoop with the options shown there reads, and callbacks run in the
// default mode. The options are given once, through NewUpgrade, which its
// comment recommends where they are always the same. Without the README's read
// timeout of 5 s: members of a room say nothing.
type greatwsServer struct {
	rooms[*greatws.Conn]
	host *control.Host
	echo bool
}

func startGreatws(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	s := &greatwsServer{host: host, echo: cfg.Mode == control.Echo}
	loops := greatws.NewMultiEventLoopMust(greatws.WithEventLoops(cfg.Loops), greatws.WithMaxEventNum(256),
		greatws.WithLogLevel(slog.LevelError))
	loops.Start()
	upgrader := greatws.NewUpgrade(greatws.WithServerReplyPing(), greatws.WithServerIgnorePong(),
		greatws.WithServerCallback(s), greatws.WithServerMultiEventLoop(loops))
	addr, err := serveHTTP(func(w http.ResponseWriter, r *http.Request) { _, _ = upgrader.Upgrade(w, r) })
	return s, addr, err
}

// OnOpen implements greatws.Callback.
func (s *greatwsServer) OnOpen(*greatws.Conn) { s.clients.Add(1) }

// OnClose implements greatws.Callback.
func (s *greatwsServer) OnClose(c *greatws.Conn, _ error) {
	s.leave(c)
	s.clients.Add(-1)
}

// OnMessage implements greatws.Callback; payload is borrowed.
func (s *greatwsServer) OnMessage(c *greatws.Conn, op greatws.Opcode, payload []byte) {
	if s.echo {
		_ = c.WriteMessage(op, payload)
		return
	}
	s.host.Handle(greatwsClient{s, c}, payload)
}

// Publish implements control.Server. WriteMessage copies the bytes that it
// keeps. A write that fails closes its connection, and that may call OnClose,
// which leaves: so the members are copied first.
func (s *greatwsServer) Publish(room int, payload []byte) error {
	for _, c := range s.snapshot(room) {
		_ = c.WriteMessage(greatws.Binary, payload)
	}
	return nil
}

type greatwsClient struct {
	server *greatwsServer
	conn   *greatws.Conn
}

// Join implements control.Client.
func (c greatwsClient) Join(room int) { c.server.join(c.conn, room) }

// Echo implements control.Client.
func (c greatwsClient) Echo(payload []byte) { _ = c.conn.WriteMessage(greatws.Binary, payload) }
