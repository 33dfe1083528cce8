package engine

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// inheritTime is the time after boundListeners in which a loop still bounds
// each accepted connection, if connections waited in the backlog then. It is
// one tick if none waited, because a connection may have been on its way into
// the backlog.
const inheritTime = 10 * time.Second

// boundListeners bounds the unsent bytes of the listening sockets; the kernel
// hands the bound down to their connections. The epolls of the loops are known.
func (e *Engine) boundListeners(found []readiness) {
	if e.cfg.UnsentBytes == 0 {
		return
	}
	for i := range found {
		r := &found[i]
		r.inherited = len(r.listeners) > 0
		wait := e.tickTime
		for _, fd := range r.listeners {
			if err := boundUnsent(fd, e.cfg.UnsentBytes); err != nil {
				r.inherited = false
			}
			if readable(fd) {
				wait = inheritTime
			}
		}
		r.inheritedFrom = e.after(wait)
	}
}

// tune sets the options that c's socket has not inherited from a listener
// of gnet; foreign is true for sockets of other listeners. Only TCP sockets
// have a bound of unsent bytes.
func (l *gnetLoop) tune(c *Conn, foreign bool) {
	cfg := &l.shard.eng.cfg
	if cfg.UnsentBytes > 0 && (foreign || !l.inheritsInLoop()) {
		_ = boundUnsent(int(c.fd), cfg.UnsentBytes)
	}
	if !foreign {
		return // gnet has set the buffers of the listener
	}
	l.setBuffer(c, unix.SO_RCVBUF, cfg.RecvBuffer)
	l.setBuffer(c, unix.SO_SNDBUF, cfg.SendBuffer)
}

// setBuffer sets the size of a buffer of c's socket, unless size is 0.
func (l *gnetLoop) setBuffer(c *Conn, option, size int) {
	if size == 0 {
		return
	}
	if err := unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, option, size); err != nil {
		l.shard.eng.cfg.Logger.Warn("ws: setting the size of a socket buffer", slog.Any("error", err))
	}
}

// inheritsInLoop reports whether a connection that the loop accepts now has
// inherited the bound of its listener.
func (l *gnetLoop) inheritsInLoop() bool {
	r := l.ready.Load()
	return r.inherited && int32(l.shard.eng.now.Load()-r.inheritedFrom) >= 0
}
