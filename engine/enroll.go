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
	if !e.beginEnroll() {
		_ = nc.Close()
		return ErrStopped
	}
	defer e.enrolls.Done()
	_ = nc.SetDeadline(time.Time{})
	if tc, ok := nc.(*tls.Conn); ok {
		nc = c.adopt(tc)
	}
	e.enrolling.Store(c, &enrolling{response: response, early: early})
	defer e.enrolling.Delete(c)
	result, err := e.leastLoaded().loop.Enroll(gnet.NewContext(ctx, c), nc)
	if err := awaitEnroll(result, err, e.stopped); err != nil {
		_ = nc.Close()
		return err
	}
	if !c.Opened() {
		return ErrClosed // no descriptors left, or the loop could not take it
	}
	return nil
}

// beginEnroll counts one call of a loop's Enroll: its end must call
// e.enrolls.Done. It reports false once the engine is draining.
func (e *Engine) beginEnroll() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() {
		return false
	}
	e.enrolls.Add(1)
	return true
}

// leastLoaded returns the shard with the fewest connections.
func (e *Engine) leastLoaded() *Shard {
	s := e.shards[0]
	for _, t := range e.shards[1:] {
		if t.stats.conns.Load() < s.stats.conns.Load() {
			s = t
		}
	}
	return s
}
