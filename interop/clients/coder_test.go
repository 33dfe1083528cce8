package clients_test

import (
	"context"
	"errors"
	"net/http"

	"github.com/coder/websocket"

	"github.com/qi-realtime/ws/interop/clients/echoserver"
)

// coder is a peer of coder/websocket. Contexts bound the time of its methods.
type coder struct {
	conn  *websocket.Conn
	pongs chan string
}

func dialCoder(ctx context.Context, url string, o dialOptions) (peer, *http.Response, error) {
	mode := websocket.CompressionDisabled
	switch {
	case o.compress && o.takeover:
		mode = websocket.CompressionContextTakeover
	case o.compress:
		mode = websocket.CompressionNoContextTakeover
	}
	pongs := make(chan string, 8)
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: o.tls, DisableKeepAlives: true}},
		HTTPHeader:   o.header,
		Subprotocols: o.subprotocols, CompressionMode: mode, CompressionThreshold: 1,
		OnPongReceived: func(_ context.Context, payload []byte) { pongs <- string(payload) },
	})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(echoserver.MessageSizeLimit)
	return &coder{conn, pongs}, resp, nil
}

func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (c *coder) send(m message) error {
	ctx, cancel := limited()
	defer cancel()
	kind := websocket.MessageText
	if m.binary {
		kind = websocket.MessageBinary
	}
	return c.conn.Write(ctx, kind, []byte(m.payload))
}

func (c *coder) receive() (message, error) {
	ctx, cancel := limited()
	defer cancel()
	kind, payload, err := c.conn.Read(ctx)
	if end, ok := errors.AsType[websocket.CloseError](err); ok {
		return message{}, &closeError{int(end.Code), end.Reason}
	}
	return message{kind == websocket.MessageBinary, string(payload)}, err
}

// ping ignores payload, because the library chooses its own. It needs a reader meanwhile.
func (c *coder) ping(string) error {
	ctx, cancel := limited()
	defer cancel()
	read := make(chan error, 1)
	go func() { // ends with the message behind the ping, or with ctx
		_, _, err := c.conn.Read(ctx)
		read <- err
	}()
	if err := c.conn.Ping(ctx); err != nil {
		return err
	}
	if len(c.pongs) != 1 {
		return errors.New("no pong")
	}
	if err := c.send(message{payload: "behind the ping"}); err != nil {
		return err
	}
	return <-read
}

// close fails unless the same code comes back.
func (c *coder) close(code int, reason string) (int, error) {
	if err := c.conn.Close(websocket.StatusCode(code), reason); err != nil {
		return 0, err
	}
	return code, nil
}

func (c *coder) subprotocol() string { return c.conn.Subprotocol() }

func (c *coder) abandon() { _ = c.conn.CloseNow() }
