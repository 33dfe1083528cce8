package ws

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/qi-realtime/ws/codec"
)

// errResponseHeader is a mistake of the application in WithResponseHeader.
var errResponseHeader = errors.New("ws: WithResponseHeader")

// answer adds to accept what the answer to r says of o, of the subprotocol and
// of the extensions, which c keeps.
func (m *Manager) answer(accept *codec.Accept, c *Client, r *http.Request, o *clientOptions) error {
	if err := codec.CheckAcceptHeader(o.header); err != nil {
		return errInternal(fmt.Errorf("%w: %w", errResponseHeader, err))
	}
	accept.Header = o.header
	if i := codec.ChooseSubprotocol(r.Header, m.cfg.Subprotocols); i >= 0 {
		accept.Subprotocol = m.cfg.Subprotocols[i]
		c.subprotocol = uint8(i + 1)
	}
	if m.cfg.EnableCompression {
		d, extensions, err := codec.NegotiateDeflate(r.Header["Sec-Websocket-Extensions"], m.cfg.Compression.options())
		if err != nil {
			return err
		}
		accept.Extensions = extensions
		c.conn.SetDeflate(d)
	}
	return nil
}

// Subprotocol returns the subprotocol that was agreed on in the handshake, one
// of Config.Subprotocols, or "" if there is none.
func (c *Client) Subprotocol() string {
	if c.subprotocol == 0 {
		return ""
	}
	return c.manager.cfg.Subprotocols[c.subprotocol-1]
}
