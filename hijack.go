package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// hijack takes the connection from net/http and enrolls it.
func (m *Manager) hijack(
	ctx context.Context, c *Client, w http.ResponseWriter, r *http.Request, accept codec.Accept,
) error {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "connection cannot be upgraded", http.StatusInternalServerError)
		return hijackError(w, err)
	}
	if err := engine.CheckEnroll(nc); err != nil {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second)) // it may be a pipe that nobody reads
		_, _ = nc.Write(codec.AppendRefusal(nil, http.StatusNotImplemented, "unsupported connection", nil))
		_ = nc.Close()
		return fmt.Errorf("ws: hijack %T: %w; the native path needs no net/http: see WithListenAddr", w, err)
	}
	addCookies(&accept, w.Header())
	early := make([]byte, rw.Reader.Buffered())
	_, _ = rw.Read(early) // from the buffer, in whole
	if err := m.engine.Enroll(ctx, &c.conn, nc, codec.AppendAccept(nil, r, accept), early); err != nil {
		return fmt.Errorf("ws: enroll: %w", err)
	}
	return nil
}

// hijackError says why w does not give its connection away, and how to avoid that.
func hijackError(w http.ResponseWriter, err error) error {
	if !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("ws: hijack %T: %w", w, err)
	}
	return fmt.Errorf("ws: hijack: a %T is no http.Hijacker and has no Unwrap method that returns one; register"+
		" HandleUpgrade outside of http.TimeoutHandler and of middleware that wraps the ResponseWriter: %w", w, err)
}

// addCookies adds to accept the cookies that middleware has set before HandleUpgrade.
func addCookies(accept *codec.Accept, h http.Header) {
	cookies := h["Set-Cookie"]
	if len(cookies) == 0 {
		return
	}
	if accept.Header == nil {
		accept.Header = make(http.Header, 1)
	}
	accept.Header["Set-Cookie"] = slices.Concat(cookies, accept.Header["Set-Cookie"])
}
