package natsbroker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// confirmEvery is the time between two pings that confirm messages.
	confirmEvery = 250 * time.Millisecond
	// settle is the time in which a server of a cluster reports new subscriptions to the others. It
	// writes them before it answers the ping of this node.
	settle = 100 * time.Millisecond
)

// link keeps the connection of a Broker. nats.go connects again after a break; the link informs the
// node, confirms messages, and makes a new connection after an error that ends nats.go's for
// good. Its fields are confined to run.
type link struct {
	broker *Broker
	log    *slog.Logger
	calls  chan func()                        // by the callbacks of nats.go, for run
	cancel atomic.Pointer[context.CancelFunc] // of the ping that is under way
	nc     *nats.Conn
	ended  bool   // nc is closed
	cause  string // of the last SetState(false)
}

func newLink(b *Broker) *link {
	l := &link{broker: b, log: b.node.Logger(), calls: make(chan func(), 16)}
	o := &b.options
	o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
		if b.store != nil {
			b.store.disconnected()
		}
		l.call(func() { l.disconnected(err) })
	}
	o.ReconnectedCB = func(*nats.Conn) { l.call(l.connected) }
	o.ReconnectErrCB = func(_ *nats.Conn, err error) { l.call(func() { l.down(err) }) }
	o.ClosedCB = func(nc *nats.Conn) { l.call(func() { l.closed(nc) }) }
	o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) { l.failed(sub, err) }
	o.LameDuckModeHandler = func(nc *nats.Conn) {
		l.log.Info("natsbroker: the server is about to stop", "url", nc.ConnectedUrlRedacted())
	}
	return l
}

// call runs f, which is about a change of the connection, on the goroutine of the link. It ends
// pings, because nats.go does not end one that began between two connections.
func (l *link) call(f func()) {
	select {
	case l.calls <- f:
	case <-l.broker.stop:
	}
	for _, cancel := range []*context.CancelFunc{l.cancel.Load(), l.broker.flushing.Load()} {
		if cancel != nil {
			(*cancel)()
		}
	}
}

// run keeps a connection until the broker stops.
func (l *link) run() {
	defer l.broker.running.Done()
	for l.connect() {
		l.serve()
		l.nc.Close()
	}
}

// connect makes a connection, and returns false when the broker stops.
func (l *link) connect() bool {
	for {
		nc, err := l.broker.options.Connect()
		if err == nil {
			l.nc, l.ended = nc, false
			l.broker.attach(nc)
			l.connected()
			return true
		}
		l.down(err)
		if !l.sleep(l.broker.cfg.wait(0)) {
			return false
		}
	}
}

// sleep returns false when the broker stops.
func (l *link) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-l.broker.stop:
		return false
	}
}

// serve runs until the connection is closed or the broker stops.
func (l *link) serve() {
	ticker := time.NewTicker(confirmEvery)
	defer ticker.Stop()
	for !l.ended {
		select {
		case f := <-l.calls:
			f()
		case <-ticker.C:
			l.confirm()
		case <-l.broker.stop:
			return
		}
	}
}

// connected reports a new connection to the node when all subscriptions are effective.
func (l *link) connected() {
	b := l.broker
	conn := b.gate.current.Load()
	b.sent.ping()
	if !l.ping() {
		return // nats.go reports the next connection
	}
	if l.nc.ConnectedClusterName() != "" && !l.sleep(settle) {
		return
	}
	if topics, found := b.sent.take(); found {
		b.node.Unconfirmed(topics)
	}
	if b.store != nil {
		b.store.connected(l.nc)
	}
	l.cause = ""
	l.log.Info("natsbroker: connected", "url", l.nc.ConnectedUrlRedacted(), "server", l.nc.ConnectedServerName())
	b.node.SetState(true, nil)
	b.gate.open(conn)
}

// ping waits until the server has read all that was written so far, and reports whether it has. A
// server that does not answer in time is given up.
func (l *link) ping() bool {
	for {
		err := l.pingOnce()
		if !errors.Is(err, context.Canceled) || len(l.calls) > 0 || l.broker.dialer.ctx.Err() != nil {
			return err == nil
		}
		// The call that has ended it was run before: possibly it is the caller of ping.
	}
}

func (l *link) pingOnce() error {
	ctx, cancel := context.WithTimeout(l.broker.dialer.ctx, l.broker.cfg.Timeout)
	defer cancel()
	l.cancel.Store(&cancel)
	defer l.cancel.Store(nil)
	if len(l.calls) > 0 {
		return ErrDown
	}
	err := l.nc.FlushWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		l.down(nats.ErrTimeout)
		_ = l.nc.ForceReconnect() // an error is the end of the connection
	}
	return err
}

// confirm forgets the messages that the server has read. A connection that is not the one of the
// last call of connected has messages of both.
func (l *link) confirm() {
	b := l.broker
	conn := b.gate.current.Load()
	if b.gate.isOpen() && b.sent.ping() && l.ping() && b.gate.current.Load() == conn {
		b.sent.confirm()
	}
}

func (l *link) disconnected(err error) {
	if err == nil {
		err = ErrDown
	}
	l.down(err)
}

// closed ends serve, for an error after which nats.go does not connect again.
func (l *link) closed(nc *nats.Conn) {
	l.ended = true
	l.down(errors.Join(ErrDown, nc.LastError()))
}

// down gives the node the reason why there is no connection. It logs each reason once.
func (l *link) down(err error) {
	if cause := err.Error(); cause != l.cause {
		l.cause = cause
		l.log.Warn("natsbroker: no connection", "error", err)
	}
	l.broker.node.SetState(false, err)
}

// failed takes an error that nats.go reports beside the state of the connection.
func (l *link) failed(sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		if s := l.broker.subscriptionOf(sub); s != nil {
			s.receiver.mark(s)
		}
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		l.call(func() { l.down(err) })
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
		l.log.Error("natsbroker: the server refuses a message or a subscription", "error", err)
	default: // the end of the connection follows
		l.log.Debug("natsbroker: the connection has failed", "error", err)
	}
}
