//go:build linux

package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// Drain ends all connections at a pace. In mode Soak another manager serves the same
// address when it returns.
func (s *server) Drain(c *control.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Window+c.Settle+time.Minute)
	defer cancel()
	m := s.manager()
	err := m.Drain(ctx, ws.DrainConfig{Grace: -1, Window: c.Window, Settle: cmp.Or(c.Settle, -1)})
	if err != nil || s.cfg.Mode != control.Soak {
		return err
	}
	addr := m.Addr()
	if err := errors.Join(m.Shutdown(ctx), <-s.run); err != nil {
		return err
	}
	for {
		err := s.start(ws.WithListenAddr("tcp://" + addr.String()))
		if !errors.Is(err, unix.EADDRINUSE) || ctx.Err() != nil {
			return err
		}
		<-time.After(10 * time.Millisecond) // a connection of others has the port for a while
	}
}

// leakedBytes is how much of the heap is lost with each connection.
const leakedBytes = 32 << 10

// leak loses a resource. It runs on the goroutine of the event bus.
func (s *server) leak() {
	switch s.cfg.Leak {
	case "goroutines":
		go func() { select {} }() // it never ends, on purpose
	case "descriptors":
		_, _ = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	case "heap":
		s.leaks = append(s.leaks, make([]byte, leakedBytes))
	}
}
