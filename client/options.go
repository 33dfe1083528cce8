package client

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Option sets one setting of a Client.
type Option func(*settings)

// settings holds the options. Immutable after New.
type settings struct {
	header        http.Header
	prepare       func(ctx context.Context, a *Attempt) error
	subprotocols  []string
	tls           *tls.Config
	dial          func(ctx context.Context, network, addr string) (net.Conn, error)
	queue         int
	makeBefore    bool
	heartbeat     time.Duration
	handshake     time.Duration
	messageLimit  int64
	random        func() float64
	maxCallbacks  int
	onStateChange func(State)
}

func defaults() settings {
	return settings{
		dial:         new(net.Dialer).DialContext,
		queue:        256,
		makeBefore:   true,
		heartbeat:    20 * time.Second,
		handshake:    10 * time.Second,
		messageLimit: 16 << 20,
		random:       rand.Float64,
		maxCallbacks: 1024,
	}
}

func (s *settings) check(u *url.URL) error {
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return errors.New("client: the scheme of the URL is neither ws nor wss")
	case u.User != nil:
		return errors.New("client: the URL has user info; use WithHeader or WithPrepare")
	case s.queue < 0, s.heartbeat < 0, s.handshake <= 0, s.messageLimit <= 0:
		return errors.New("client: an option has a value below its least")
	default:
		return codec.CheckOffer(s.offer(u, s.header))
	}
}

// offer returns the opening handshake without its key.
func (s *settings) offer(u *url.URL, header http.Header) codec.Offer {
	target := u.EscapedPath()
	if target == "" {
		target = "/"
	}
	if u.RawQuery != "" {
		target += "?" + u.RawQuery
	}
	return codec.Offer{Host: u.Host, Target: target, Subprotocols: s.subprotocols, Header: header}
}

// WithHeader adds lines to the upgrade request.
func WithHeader(h http.Header) Option { return func(s *settings) { s.header = h.Clone() } }

// Attempt is an upgrade request before it is sent. A function of WithPrepare may change URL
// and Header. Not safe for concurrent use.
type Attempt struct {
	URL    *url.URL
	Header http.Header
	// Refresh reports that the server has refused the last credentials (close code 4401, or
	// status 401). It stays set until a function of WithPrepare returns nil.
	Refresh bool
}

// WithPrepare sets a function that runs before each upgrade request, on a goroutine of the
// connection, such as one that adds a token. It may wait, until ctx ends. An error counts as a
// failed attempt: the client tries again later.
func WithPrepare(fn func(ctx context.Context, a *Attempt) error) Option {
	return func(s *settings) { s.prepare = fn }
}

// WithSubprotocols offers subprotocols, in order of preference. Client.Subprotocol returns the
// server's choice.
func WithSubprotocols(names ...string) Option {
	return func(s *settings) { s.subprotocols = append([]string(nil), names...) }
}

// WithTLSConfig sets the configuration of wss connections.
func WithTLSConfig(cfg *tls.Config) Option { return func(s *settings) { s.tls = cfg.Clone() } }

// WithDialer sets the function that opens connections, such as one through a proxy. addr has a
// port. The default is net.Dialer.DialContext.
func WithDialer(fn func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(s *settings) { s.dial = fn }
}

// WithQueueSize sets the number of requests that may wait while there is no connection, or the
// connection is blocked; 256 by default. With 0 a request needs an open connection.
func WithQueueSize(n int) Option { return func(s *settings) { s.queue = n } }

// WithMakeBeforeBreak sets whether the client opens a new connection before it closes the old
// one when the server asks it to move (the notification ws.reconnect). On by default: the
// client adds the parameter notice=1 to the query of the URL, which the application on the server takes
// for the client option WithReconnectNotice.
func WithMakeBeforeBreak(on bool) Option { return func(s *settings) { s.makeBefore = on } }

// WithHeartbeat sets the interval of the check for a silent connection: after one interval
// without a byte of the server the client sends a ping, after another one it gives the
// connection up. 20 s by default; 0 is off.
func WithHeartbeat(interval time.Duration) Option {
	return func(s *settings) { s.heartbeat = interval }
}

// WithHandshakeTimeout sets the longest time of an attempt to connect; 10 s by default.
func WithHandshakeTimeout(d time.Duration) Option { return func(s *settings) { s.handshake = d } }

// WithMessageSizeLimit sets the most bytes of a message of the server; 16 MiB by default. Beyond
// it the client closes the connection with 1009 and stops.
func WithMessageSizeLimit(n int64) Option { return func(s *settings) { s.messageLimit = n } }

// WithOnState sets a callback for each change of the state. It runs like all callbacks.
func WithOnState(fn func(State)) Option { return func(s *settings) { s.onStateChange = fn } }
