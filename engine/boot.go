package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// bootTime bounds the start of the loops.
const bootTime = 10 * time.Second

// runListening runs the loops with gnet's listeners, one for each loop.
func (e *Engine) runListening() error {
	addr, release, err := e.reserve(e.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("ws: listen %s: %w", e.cfg.ListenAddr, err)
	}
	defer release()
	boot := make(chan struct{})
	go func() { // owned by this call, which waits for it
		defer close(boot)
		select {
		case <-e.ticking:
			e.boot(func(ctx context.Context, wakeConn net.Conn) error {
				result, err := e.gnet.Register(gnet.NewNetConnContext(ctx, wakeConn))
				return awaitEnroll(result, err, e.closing)
			})
		case <-e.closing:
		}
	}()
	err = gnet.Run((*events)(e), addr, e.options()...)
	e.closeOnce()
	<-boot
	if err != nil {
		return fmt.Errorf("ws: listen %s: %w", e.cfg.ListenAddr, err)
	}
	return nil
}

// runEnrolling runs the loops without a listener of gnet: connections come from
// Enroll, and from our own listener for a Unix socket.
func (e *Engine) runEnrolling() error {
	var l *unixListener
	if e.listensOnUnix() {
		var err error
		if l, err = e.listenUnix(); err != nil {
			return fmt.Errorf("ws: listen %s: %w", e.cfg.ListenAddr, err)
		}
		defer func() { _ = l.Close() }()
	}
	cli, err := gnet.NewClient((*events)(e), e.options()...)
	if err == nil {
		err = cli.Start()
	}
	if err != nil {
		return fmt.Errorf("ws: start event loops: %w", err)
	}
	e.boot(func(ctx context.Context, wakeConn net.Conn) error {
		_, err := cli.EnrollContext(wakeConn, gnet.FromContext(ctx))
		return err
	})
	var acceptor sync.WaitGroup
	if l != nil {
		acceptor.Go(func() { // owned by this call, which waits for it
			if err := e.Serve(l); err != nil && !errors.Is(err, ErrStopped) {
				e.cfg.Logger.Error("ws: accepting", slog.Any("error", err))
			}
		})
	}
	<-e.closing
	e.stopAccepting(context.Background())
	acceptor.Wait()
	if err := cli.Stop(); err != nil {
		return fmt.Errorf("ws: stop event loops: %w", err)
	}
	return nil
}

// boot binds every shard to a loop. gnet gives access to a loop only through a
// connection on it, so a wake-up connection is enrolled in each. gnet puts it
// on the loop with the fewest connections; a loop that already has some is
// bound by its first one.
func (e *Engine) boot(enroll func(context.Context, net.Conn) error) {
	err := e.bindAll(enroll)
	if err == nil {
		e.bindReadiness()
		close(e.started)
		return
	}
	e.mu.Lock()
	e.failed = fmt.Errorf("ws: start event loops: %w", err)
	eng := e.gnet
	e.mu.Unlock()
	e.halt()
	if e.cfg.ListenAddr != "" && !e.listensOnUnix() { // a loop without a waker does not notice halt
		_ = eng.Stop(context.Background())
	}
}

func (e *Engine) bindAll(enroll func(context.Context, net.Conn) error) error {
	for deadline := time.Now().Add(bootTime); ; {
		e.mu.Lock()
		bound := e.bound
		e.mu.Unlock()
		if bound == len(e.loops) {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d loops came up", bound, len(e.loops))
		}
		if err := e.enrollWaker(enroll); err != nil {
			return err
		}
	}
	for _, l := range e.loops {
		if l.waker.Load() != nil {
			continue
		}
		if err := e.enrollWaker(func(ctx context.Context, c net.Conn) error {
			result, err := l.Enroll(ctx, c)
			return awaitEnroll(result, err, e.closing)
		}); err != nil {
			return err
		}
	}
	return nil
}

// bindReadiness finds the epoll of each loop, while there are few descriptors
// to search.
func (e *Engine) bindReadiness() {
	fds := make([]int, len(e.loops))
	for i, l := range e.loops {
		fds[i] = l.waker.Load().loopFD
	}
	found, err := []readiness(nil), errNoReadiness
	if !e.cfg.NoReadiness {
		found, err = findReadiness(fds)
	}
	if err != nil {
		e.cfg.Logger.Warn("ws: connections and listeners cannot be paused: a client that sends too fast is closed",
			slog.Any("error", err))
		return
	}
	e.boundListeners(found)
	for i, l := range e.loops {
		l.ready.Store(&found[i])
	}
	e.accept.adopt()
}

// awaitEnroll waits for the result of an enrollment, which never comes if the
// loop ends meanwhile, or for ended. See also place.await.
func awaitEnroll(result <-chan gnet.RegisteredResult, err error, ended <-chan struct{}) error {
	if err != nil {
		return err
	}
	select {
	case r, ok := <-result:
		if !ok {
			return ErrClosed // gnet has panicked
		}
		return r.Err
	case <-ended:
		return ErrStopped
	}
}

// waker is a socket pair with one end in the shard's loop, as a connection. A
// byte written to the other end comes as traffic: after the loop has served the
// ready connections. In this way a loop with work left yields to them, one that
// works or that waits in gnet learns of its inbox, and that it must end.
type waker struct {
	fd      int       // the end we write to
	loopFD  int       // the end that the loop reads; set when the loop has it
	loopEnd gnet.Conn // that end's connection; loop-confined
}

// yield requests another turn of the loop. Safe for concurrent use.
func (w *waker) yield() {
	// A full socket means that enough requests are waiting.
	_, _ = unix.Write(w.fd, []byte{0})
}

// wakerEnd is the context of a waker's connection on its loop.
type wakerEnd struct{ waker *waker }

// enrollWaker makes a socket pair and enrolls one end with enroll. The shard
// that gets the connection keeps the pair if it has none.
func (e *Engine) enrollWaker(enroll func(context.Context, net.Conn) error) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	file := os.NewFile(uintptr(fds[0]), "waker")
	conn, err := net.FileConn(file) // a duplicate
	_ = file.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return fmt.Errorf("wake-up connection: %w", err)
	}
	w := &waker{fd: fds[1]}
	if err := unix.SetNonblock(w.fd, true); err != nil {
		return os.NewSyscallError("setnonblock", err)
	}
	e.mu.Lock()
	e.wakers = append(e.wakers, w)
	e.mu.Unlock()
	ctx := gnet.NewContext(context.Background(), &wakerEnd{w})
	if err := enroll(ctx, conn); err != nil {
		return fmt.Errorf("wake-up connection: %w", err)
	}
	return nil
}

// closeWakers closes our ends of the pairs, after the loops have ended.
func (e *Engine) closeWakers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wakers {
		_ = unix.Close(w.fd)
	}
	e.wakers = nil
}
