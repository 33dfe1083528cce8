package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// acceptor accepts the connections of a Unix listener, and hands each to the
// loop with the fewest. gnet has one acceptor for such a listener, which empties
// the backlog before any loop could refuse, and ends all loops when the
// descriptors run out.
type acceptor struct {
	eng      *Engine
	listener *net.UnixListener
	ended    chan struct{} // closed when run has returned
}

// acceptedByUs is gnet's context of a connection that an acceptor hands over.
type acceptedByUs struct{ place *place }

const pathScheme = "unix://"

// listensOnPath reports whether the listener is a Unix socket.
func (e *Engine) listensOnPath() bool { return strings.HasPrefix(e.cfg.ListenAddr, pathScheme) }

// listenOnPath listens at the path of ListenAddr, in place of a socket that is
// left there.
func (e *Engine) listenOnPath() (*acceptor, error) {
	path := strings.TrimPrefix(e.cfg.ListenAddr, pathScheme)
	if err := checkUnixPath(path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, err
	}
	e.setAddr(addr)
	return &acceptor{eng: e, listener: l, ended: make(chan struct{})}, nil
}

// checkUnixPath refuses a path that exists and is no socket.
func checkUnixPath(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	return nil
}

// run accepts until nobody is let in any more, and then refuses those who wait.
func (a *acceptor) run() {
	defer close(a.ended)
	for {
		nc, err := a.listener.AcceptUnix()
		select {
		case <-a.eng.accept.over:
			if err == nil {
				a.refuse(nc)
			}
			a.giveUp()
			return
		default:
		}
		if err != nil { // descriptors or memory have run out
			a.eng.accept.exhausted(err)
			continue
		}
		a.admit(nc)
	}
}

// admit waits for the connection's turn and hands it to a loop.
func (a *acceptor) admit(nc *net.UnixConn) {
	e := a.eng
	if e.accept.await(context.Background(), turnAccept) != nil {
		a.refuse(nc)
		return
	}
	if raw, err := nc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { e.accept.enroll(int(fd), e.choosePlace) })
	}
	_ = nc.Close()
}

func (a *acceptor) refuse(nc *net.UnixConn) {
	if raw, err := nc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { a.eng.refuseSocket(int(fd)) })
	}
	_ = nc.Close()
}

// giveUp refuses those in the backlog.
func (a *acceptor) giveUp() {
	if raw, err := a.listener.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { a.eng.refuseBacklog(int(fd)) })
	}
}

// stop ends run and waits for it. The gate lets nobody in any more.
func (a *acceptor) stop() {
	_ = a.listener.SetDeadline(time.Unix(1, 0)) // ends Accept
	<-a.ended
}

// release closes the listener and removes its path.
func (a *acceptor) release() { _ = a.listener.Close() }
