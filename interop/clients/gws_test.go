package clients_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lxzan/gws"

	"github.com/qi-realtime/ws/interop/clients/echoserver"
)

// gwsPeer is a peer of lxzan/gws, whose callbacks it turns into channels.
type gwsPeer struct {
	gws.BuiltinEventHandler
	conn     *gws.Conn
	messages chan message
	pongs    chan string
	closed   chan error
}

func dialGWS(_ context.Context, url string, o dialOptions) (peer, *http.Response, error) {
	g := &gwsPeer{messages: make(chan message, 64), pongs: make(chan string, 8), closed: make(chan error, 1)}
	header := o.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	for _, name := range o.subprotocols {
		if offers := header.Get("Sec-WebSocket-Protocol"); offers != "" {
			name = offers + ", " + name
		}
		header.Set("Sec-WebSocket-Protocol", name)
	}
	conn, resp, err := gws.NewClient(g, &gws.ClientOption{
		Addr: url, TlsConfig: o.tls, RequestHeader: header, HandshakeTimeout: patience, CheckUtf8Enabled: true,
		ReadMaxPayloadSize: echoserver.MessageSizeLimit, WriteMaxPayloadSize: 2 * echoserver.MessageSizeLimit,
		PermessageDeflate: gws.PermessageDeflate{
			Enabled: o.compress, Threshold: 1, ServerContextTakeover: o.takeover, ClientContextTakeover: o.takeover,
		},
	})
	if err != nil {
		return nil, resp, err
	}
	g.conn = conn
	go conn.ReadLoop() // ends with the connection, which the test closes
	return g, resp, nil
}

func (g *gwsPeer) OnMessage(_ *gws.Conn, m *gws.Message) {
	g.messages <- message{m.Opcode == gws.OpcodeBinary, m.Data.String()}
	_ = m.Close()
}

func (g *gwsPeer) OnPong(_ *gws.Conn, payload []byte) { g.pongs <- string(payload) }

func (g *gwsPeer) OnClose(_ *gws.Conn, err error) { g.closed <- err }

func (g *gwsPeer) send(m message) error {
	op := gws.OpcodeText
	if m.binary {
		op = gws.OpcodeBinary
	}
	return g.conn.WriteMessage(op, []byte(m.payload))
}

func (g *gwsPeer) receive() (message, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case m := <-g.messages:
		return m, nil
	case err := <-g.closed:
		if end, ok := errors.AsType[*gws.CloseError](err); ok {
			return message{}, &closeError{int(end.Code), string(end.Reason)}
		}
		return message{}, err
	case <-timer.C:
		return message{}, errors.New("no message")
	}
}

func (g *gwsPeer) ping(payload string) error {
	if err := g.conn.WritePing([]byte(payload)); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case got := <-g.pongs:
		if got != payload {
			return errors.New("another pong")
		}
		return nil
	case <-timer.C:
		return errors.New("no pong")
	}
}

// close does not wait for an answer: the library hangs up at once.
func (g *gwsPeer) close(code int, reason string) (int, error) {
	return 0, g.conn.WriteClose(uint16(code), []byte(reason))
}

func (g *gwsPeer) subprotocol() string { return g.conn.SubProtocol() }

func (g *gwsPeer) abandon() { _ = g.conn.NetConn().Close() }
