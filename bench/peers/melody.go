package main

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/olahol/melody"

	"github.com/qi-realtime/ws/bench/control"
)

// melodyServer is the chat example of melody's README (v1.1.4) with binary
// messages. BroadcastBinaryFilter would ask each of all sessions for each
// message; so a room's members are kept and written to one by one, as
// BroadcastMultiple does with text. A session whose buffer is full loses the
// message (ErrMessageBufferFull); that is counted.
type melodyServer struct {
	rooms[*melody.Session]
	host *control.Host
}

func startMelody(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	s := &melodyServer{host: host}
	m := melody.New()
	m.Config.MaxMessageSize = maxMessage // 512 by default
	m.Config.MessageBufferSize = queueSize(cfg)
	m.HandleConnect(func(*melody.Session) { s.clients.Add(1) })
	m.HandleDisconnect(func(session *melody.Session) {
		s.leave(session)
		s.clients.Add(-1)
	})
	m.HandleError(func(_ *melody.Session, err error) {
		if errors.Is(err, melody.ErrMessageBufferFull) {
			s.dropped.Add(1)
		}
	})
	echo := cfg.Mode == control.Echo
	m.HandleMessageBinary(func(session *melody.Session, payload []byte) {
		if echo {
			_ = session.WriteBinary(payload)
			return
		}
		host.Handle(melodyClient{s, session}, payload)
	})
	addr, err := serveHTTP(func(w http.ResponseWriter, r *http.Request) { _ = m.HandleRequest(w, r) })
	return s, addr, err
}

// Publish implements control.Server.
func (s *melodyServer) Publish(room int, payload []byte) error {
	msg := bytes.Clone(payload)
	s.each(room, func(session *melody.Session) { _ = session.WriteBinary(msg) })
	return nil
}

type melodyClient struct {
	server  *melodyServer
	session *melody.Session
}

// Join implements control.Client.
func (c melodyClient) Join(room int) { c.server.join(c.session, room) }

// Echo implements control.Client.
func (c melodyClient) Echo(payload []byte) { _ = c.session.WriteBinary(payload) }
