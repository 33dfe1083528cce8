package natsbroker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Config holds the settings of a Broker. The zero value is valid.
type Config struct {
	// Servers are the URLs of NATS servers, some or all of a cluster: a server names the others to
	// its clients. Default is nats://127.0.0.1:4222.
	Servers []string
	// Options are options of nats.go, such as nats.UserCredentials, nats.RootCAs or nats.Name. The
	// Broker sets its own handlers, reconnects, timeouts and nats.NoEcho after them.
	Options []nats.Option
	// Prefix begins each subject. Clusters of nodes that share a server need different ones. Letters,
	// digits, "-" and "_", in parts with dots between. Default is "ws".
	Prefix string
	// Receivers is the number of goroutines that hand messages to the Manager; those of a topic take
	// one way. Default is the number of CPUs, up to 4.
	Receivers int
	// Pending bounds the messages that wait for each receiver while the Manager is busy. Those
	// beyond it are dropped, and their rooms have a gap. Default is 4,096.
	Pending int
	// ReconnectWait is the time between two attempts to connect when no server is there, to which a
	// random time up to the same length is added. Default is 500 ms.
	ReconnectWait time.Duration
	// PingInterval is the time between pings of an idle connection; the third without an answer
	// ends it. Default is 2 s.
	PingInterval time.Duration
	// Timeout bounds a dial, the handshake with the server, a write, and the wait for the answer to
	// a ping that confirms messages or subscriptions. Default is 5 s.
	Timeout time.Duration
}

// defaultTo sets a field that is zero.
func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// complete sets the defaults, and returns an error for an invalid setting.
func (c *Config) complete() error {
	if len(c.Servers) == 0 {
		c.Servers = []string{nats.DefaultURL}
	}
	defaultTo(&c.Prefix, "ws")
	defaultTo(&c.Receivers, min(runtime.GOMAXPROCS(0), 4))
	defaultTo(&c.Pending, 4096)
	defaultTo(&c.ReconnectWait, 500*time.Millisecond)
	defaultTo(&c.PingInterval, 2*time.Second)
	defaultTo(&c.Timeout, 5*time.Second)
	if c.Receivers < 0 || c.Pending < 0 || c.ReconnectWait < 0 || c.PingInterval < 0 || c.Timeout < 0 {
		return fmt.Errorf("natsbroker: a setting is negative: %+v", *c)
	}
	for _, s := range c.Servers {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		if _, err := url.Parse(s); err != nil {
			return fmt.Errorf("natsbroker: %w", err)
		}
	}
	return checkPrefix(c.Prefix)
}

// wait returns a random time between attempts.
func (c *Config) wait(int) time.Duration { return c.ReconnectWait + rand.N(c.ReconnectWait) }

// options returns the options of nats.go, without the handlers. They make connections with the
// dialer.
func (c *Config) options(d *dialer) (nats.Options, error) {
	o := nats.GetDefaultOptions()
	for _, opt := range c.Options {
		if err := opt(&o); err != nil {
			return o, fmt.Errorf("natsbroker: %w", err)
		}
	}
	o.Servers = c.Servers
	o.NoEcho = true
	o.AllowReconnect = true
	o.MaxReconnect = -1
	o.ReconnectBufSize = -1 // a message that waits for a connection would be lost in silence
	o.CustomReconnectDelayCB = c.wait
	o.IgnoreAuthErrorAbort = true
	o.RetryOnFailedConnect = false // connect tries again
	o.PingInterval = c.PingInterval
	o.MaxPingsOut = 2
	o.Timeout = c.Timeout
	o.FlusherTimeout = c.Timeout
	d.dial = dialOf(&o)
	if o.InProcessServer != nil {
		o.InProcessServer = d
	}
	o.CustomDialer = d
	return o, nil
}

// dialOf returns the function that makes connections with the options of the application.
func dialOf(o *nats.Options) func(ctx context.Context, network, address string) (net.Conn, error) {
	if server := o.InProcessServer; server != nil {
		return func(context.Context, string, string) (net.Conn, error) { return server.InProcessConn() }
	}
	if custom := o.CustomDialer; custom != nil {
		return func(_ context.Context, network, address string) (net.Conn, error) {
			return custom.Dial(network, address)
		}
	}
	if o.Dialer != nil {
		return o.Dialer.DialContext
	}
	return (&net.Dialer{Timeout: o.Timeout}).DialContext
}
