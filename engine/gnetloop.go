package engine

import (
	"context"
	"log/slog"
	"sync/atomic"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	_ "github.com/qi-realtime/ws/internal/unixonly" // for its error on other systems
)

// gnetLoop is the driver of a shard on one of gnet's event loops.
//
// Execute, Enroll, wake and yield are safe for concurrent use. Loop-confined
// otherwise: use only on the event loop that owns the connection.
type gnetLoop struct {
	// Immutable once the loop is bound.
	eventLoop
	shard *Shard

	waker atomic.Pointer[waker] // set once, while the engine boots

	writable *writablePoller // set before the loops start, closed after they have ended

	ready atomic.Pointer[readiness] // replaced once, before Engine.Started

	// listener is the listener of this loop, nil if there is none or it cannot
	// be paused. It is set once, before Engine.Started.
	listener atomic.Pointer[loopListener]

	wait       loopWait
	connFields connFields // loop-confined
}

func newGnetLoop(s *Shard) *gnetLoop {
	l := &gnetLoop{shard: s}
	l.ready.Store(&noReadiness)
	return l
}

func (l *gnetLoop) yield() {
	if w := l.waker.Load(); w != nil {
		w.yield()
		return
	}
	go func() { // ends at once; only while the engine boots
		_ = l.Execute(context.Background(), l.shard)
	}()
}

func (l *gnetLoop) canPause() bool        { return l.ready.Load().known() }
func (l *gnetLoop) unwatch(c *Conn) error { return l.ready.Load().pause(int(c.fd)) }
func (l *gnetLoop) watch(c *Conn) error   { return l.ready.Load().resume(int(c.fd)) }

func (l *gnetLoop) ended() {
	e := l.shard.eng
	if e.cfg.ListenAddr != "" && !e.listensOnUnix() {
		// This loop, perhaps the only one, does not notice its waker any more.
		e.mu.Lock()
		eng := e.gnet
		e.mu.Unlock()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = eng.Stop(ended) // does not wait
	}
	if w := l.waker.Load(); w != nil {
		_ = w.loopEnd.EventLoop().Close(w.loopEnd)
	}
}

func (l *gnetLoop) adopt(c *Conn, foreign bool) {
	l.tune(c, foreign)
	l.connFields.clear(c.gc, l.shard.eng.cfg.TLSConfig != nil)
}

func (l *gnetLoop) writev(c *Conn, iov []unix.Iovec) (int, error) {
	if len(iov) == 1 {
		return write(int(c.fd), unsafe.Slice(iov[0].Base, iov[0].Len)) // cheaper for the kernel
	}
	return writev(int(c.fd), iov)
}

func (l *gnetLoop) write(c *Conn, b []byte) (int, error) { return write(int(c.fd), b) }

func (l *gnetLoop) boundUnsent(c *Conn, bytes int) bool {
	_ = boundUnsent(int(c.fd), bytes)
	return true
}

func (l *gnetLoop) arm(c *Conn) error         { return l.writable.arm(c) }
func (l *gnetLoop) disarm(c *Conn)            { l.writable.disarm(c) }
func (l *gnetLoop) hasUnread(c *Conn) bool    { return hasUnread(int(c.fd)) }
func (l *gnetLoop) progress(c *Conn) progress { return readProgress(int(c.fd)) }
func (l *gnetLoop) halfClose(c *Conn)         { _ = unix.Shutdown(int(c.fd), unix.SHUT_WR) }

func (l *gnetLoop) resetOnClose(c *Conn) {
	_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func (l *gnetLoop) drain(c *Conn) { drainDescriptor(int(c.fd)) }

// drainDescriptor is drain for a socket that may be on no loop.
func drainDescriptor(fd int) {
	var scratch [4096]byte
	for range 64 {
		if n, err := unix.Read(fd, scratch[:]); n <= 0 || err != nil {
			return
		}
	}
}

func (l *gnetLoop) close(c *Conn) {
	if c.is(halfClosed) {
		l.shard.closeHalfClosed(c)
		return
	}
	gc := c.gc.(gnet.Conn)
	if err := gc.EventLoop().Close(gc); err != nil {
		l.shard.eng.cfg.Logger.Warn("ws: closing a connection", slog.Any("error", err))
	}
}

func (l *gnetLoop) handOver(c *Conn) (fd int, err error) {
	if fd, err = duplicate(int(c.fd)); err != nil {
		return 0, err
	}
	if fd >= l.shard.eng.accept.limit() {
		_ = unix.Close(fd)
		return 0, unix.EMFILE
	}
	c.gc.SetContext(nil)
	l.close(c)
	return fd, nil
}

func (l *gnetLoop) release(c *Conn) { _ = unix.Close(int(c.fd)) }
