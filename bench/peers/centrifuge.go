package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/gobwas/ws"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/qi-realtime/ws/bench/control"
)

// centrifugeServer is a node of centrifuge (v0.40.1) whose clients come through
// a Transport of our own: the README names that as an option, and
// _examples/custom_ws_gobwas shows one on gobwas/ws. It is unidirectional, so
// that no client speaks centrifuge's protocol: Connect and server-side
// Subscribe are called here, channels are rooms, and the node's hub, queues and
// writers do the rest, as they would for its own handler. The
// transport unwraps the messages that it writes, one Push in Protobuf each: each
// payload is a binary message, and all that the writer hands over at once are
// one write, as in the node's own transport. Messages of clients do not pass the
// command protocol: echo rows are without its cost.
type centrifugeServer struct {
	counts
	node *centrifuge.Node
	host *control.Host
	echo bool
}

func startCentrifuge(cfg *control.Config, host *control.Host) (control.Server, string, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, "", err
	}
	s := &centrifugeServer{node: node, host: host, echo: cfg.Mode == control.Echo}
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		return nil, "", err
	}
	addr, err := serveHTTP(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		go s.serve(conn, rw.Reader) // ends with the connection
	})
	return s, addr, err
}

// serve reads one connection.
func (s *centrifugeServer) serve(conn net.Conn, r *bufio.Reader) {
	defer conn.Close()
	t := &centrifugeTransport{server: s, conn: conn}
	ctx := centrifuge.SetCredentials(context.Background(), &centrifuge.Credentials{})
	client, closeClient, err := centrifuge.NewClient(ctx, s.node, t)
	if err != nil {
		return
	}
	defer func() { _ = closeClient() }()
	client.Connect(centrifuge.ConnectRequest{})
	var payload []byte
	for {
		h, p, err := gobwasRead(r, payload)
		if err != nil {
			return
		}
		payload = p
		switch {
		case h.OpCode == ws.OpPing:
			t.pong(payload)
		case h.OpCode == ws.OpPong:
		case s.echo:
			_ = client.Send(payload)
		default:
			s.host.Handle(centrifugeClient{s, client}, payload)
		}
	}
}

// Publish implements control.Server.
func (s *centrifugeServer) Publish(room int, payload []byte) error {
	_, err := s.node.Publish(channel(room), payload)
	return err
}

// Report implements control.Server.
func (s *centrifugeServer) Report(r *control.Report) {
	r.Clients, r.Members = s.node.Hub().NumClients(), s.node.Hub().NumSubscriptions()
	r.Dropped = s.dropped.Load()
}

func channel(room int) string { return "bench-" + strconv.Itoa(room) }

type centrifugeClient struct {
	server *centrifugeServer
	*centrifuge.Client
}

// Join implements control.Client.
func (c centrifugeClient) Join(room int) { _ = c.Subscribe(channel(room)) }

// Echo implements control.Client.
func (c centrifugeClient) Echo(payload []byte) { _ = c.Send(payload) }

// centrifugeTransport implements centrifuge.Transport over a WebSocket
// connection. Safe for concurrent use.
type centrifugeTransport struct {
	server *centrifugeServer
	conn   net.Conn
	closed sync.Once
}

// Name implements centrifuge.Transport, as do the methods that follow.
func (*centrifugeTransport) Name() string { return "websocket" }

// AcceptProtocol is for its metrics.
func (*centrifugeTransport) AcceptProtocol() string { return "h1" }

// Protocol is the one with opaque payloads.
func (*centrifugeTransport) Protocol() centrifuge.ProtocolType {
	return centrifuge.ProtocolTypeProtobuf
}

// ProtocolVersion is the only one.
func (*centrifugeTransport) ProtocolVersion() centrifuge.ProtocolVersion {
	return centrifuge.ProtocolVersion2
}

// Unidirectional says that clients send no commands.
func (*centrifugeTransport) Unidirectional() bool { return true }

// Emulation says that this is not the layer for browsers without WebSocket.
func (*centrifugeTransport) Emulation() bool { return false }

// DisabledPushFlags leaves publications and messages.
func (*centrifugeTransport) DisabledPushFlags() uint64 {
	return ^(centrifuge.PushFlagPublication | centrifuge.PushFlagMessage)
}

// PingPongConfig leaves pings to the WebSocket protocol.
func (*centrifugeTransport) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}
}

// writeBuffers are the buffers of Write and WriteMany: the connections write little
// of the time.
var writeBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Write sends one push.
func (t *centrifugeTransport) Write(push []byte) error {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	*buf = appendPush((*buf)[:0], push)
	return t.write(*buf)
}

// WriteMany sends some pushes at once.
func (t *centrifugeTransport) WriteMany(pushes ...[]byte) error {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	*buf = (*buf)[:0]
	for _, push := range pushes {
		*buf = appendPush(*buf, push)
	}
	return t.write(*buf)
}

// centrifugeWriteTimeout is the timeout of the node's own transport. Without it a
// client that stalls is not even closed: that waits for the write.
const centrifugeWriteTimeout = time.Second

func (t *centrifugeTransport) write(b []byte) error {
	_ = t.conn.SetWriteDeadline(time.Now().Add(centrifugeWriteTimeout))
	_, err := t.conn.Write(b)
	return err
}

// Close sends the reason and closes.
func (t *centrifugeTransport) Close(d centrifuge.Disconnect) error {
	t.closed.Do(func() {
		if d.Code == centrifuge.DisconnectSlow.Code || d.Code == centrifuge.DisconnectWriteError.Code {
			t.server.dropped.Add(1)
		}
		_ = t.conn.Close()
	})
	return nil
}

func (t *centrifugeTransport) pong(payload []byte) {
	if frame, err := ws.CompileFrame(ws.NewPongFrame(payload)); err == nil {
		_, _ = t.conn.Write(frame)
	}
}

// The fields of centrifugal/protocol's client.proto that lead to the payload.
const (
	fieldPushPub     = 4
	fieldPushMessage = 8
	fieldPubData     = 4
	fieldMessageData = 1
)

// appendPush appends the payload of a push as one binary frame. Other pushes
// are left out.
func appendPush(dst, push []byte) []byte {
	payload, ok := field(push, fieldPushPub)
	if ok {
		payload, ok = field(payload, fieldPubData)
	} else if payload, ok = field(push, fieldPushMessage); ok {
		payload, ok = field(payload, fieldMessageData)
	}
	if !ok {
		return dst
	}
	dst = append(dst, 0x80|byte(ws.OpBinary))
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = append(dst, 126, byte(n>>8), byte(n))
	default:
		dst = append(dst, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, payload...)
}

// field returns the bytes of a length-delimited field of a Protobuf message.
func field(b []byte, number protowire.Number) ([]byte, bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		if num == number && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			return v, n >= 0
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
	}
	return nil, false
}
