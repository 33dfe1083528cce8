package clients_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// gorilla is a peer of gorilla/websocket.
type gorilla struct {
	conn  *websocket.Conn
	pongs []string
}

func dialGorilla(ctx context.Context, url string, o dialOptions) (peer, *http.Response, error) {
	d := websocket.Dialer{TLSClientConfig: o.tls, Subprotocols: o.subprotocols, EnableCompression: o.compress}
	conn, resp, err := d.DialContext(ctx, url, o.header)
	if err != nil {
		return nil, resp, err
	}
	g := &gorilla{conn: conn}
	conn.SetPongHandler(func(payload string) error {
		g.pongs = append(g.pongs, payload)
		return nil
	})
	return g, resp, conn.SetReadDeadline(time.Now().Add(patience))
}

func (g *gorilla) send(m message) error {
	kind := websocket.TextMessage
	if m.binary {
		kind = websocket.BinaryMessage
	}
	return g.conn.WriteMessage(kind, []byte(m.payload))
}

func (g *gorilla) receive() (message, error) {
	kind, payload, err := g.conn.ReadMessage()
	if end, ok := errors.AsType[*websocket.CloseError](err); ok {
		return message{}, &closeError{end.Code, end.Text}
	}
	return message{kind == websocket.BinaryMessage, string(payload)}, err
}

// ping needs a message behind it, because the library handles pongs while it reads one.
func (g *gorilla) ping(payload string) error {
	if err := g.conn.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(patience)); err != nil {
		return err
	}
	if err := g.send(message{payload: "behind the ping"}); err != nil {
		return err
	}
	if _, err := g.receive(); err != nil {
		return err
	}
	if len(g.pongs) != 1 || g.pongs[0] != payload {
		return errors.New("no such pong")
	}
	return nil
}

func (g *gorilla) close(code int, reason string) (int, error) {
	frame := websocket.FormatCloseMessage(code, reason)
	if err := g.conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)); err != nil {
		return 0, err
	}
	_, err := g.receive()
	if end, ok := errors.AsType[*closeError](err); ok {
		return end.code, g.conn.Close()
	}
	return 0, err
}

func (g *gorilla) subprotocol() string { return g.conn.Subprotocol() }

func (g *gorilla) abandon() { _ = g.conn.Close() }
