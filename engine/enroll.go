package engine

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// enrolling is what a connection brings along on its way to a loop after
// net/http accepted it. It is kept apart from gnet's context, which would hold
// it for the connection's life.
type enrolling struct {
	response []byte // the handshake's answer
	early    []byte // what net/http had read behind the request
}

// Enroll hands nc, a *net.TCPConn, *net.UnixConn, or a *tls.Conn on one of them
// whose handshake is done (see CheckEnroll), to the loop with the fewest
// connections. It writes response there first, then takes early as the
// first bytes received; both are owned. When Enroll returns without an error
// the connection is open, nc is closed in favor of a duplicate, and no
// goroutine stays. On an error nc is closed.
func (e *Engine) Enroll(ctx context.Context, c *Conn, nc net.Conn, response, early []byte) error {
	e.mu.Lock()
	draining := e.draining.Load()
	if !draining {
		e.enrolls.Add(1)
	}
	e.mu.Unlock()
	if draining {
		_ = nc.Close()
		return ErrStopped
	}
	defer e.enrolls.Done()
	_ = nc.SetDeadline(time.Time{})
	if tc, ok := nc.(*tls.Conn); ok {
		nc = c.adopt(tc)
	}
	s := e.shards[0]
	for _, t := range e.shards[1:] {
		if t.stats.conns.Load() < s.stats.conns.Load() {
			s = t
		}
	}
	e.enrolling.Store(c, &enrolling{response: response, early: early})
	defer e.enrolling.Delete(c)
	result, err := s.loop.Enroll(gnet.NewContext(ctx, c), nc)
	if err := awaitEnroll(result, err, e.stopped); err != nil {
		_ = nc.Close()
		return err
	}
	if !c.Opened() {
		return ErrClosed // no descriptors left, or the loop could not take it
	}
	return nil
}
