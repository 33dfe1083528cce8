//go:build linux

package server

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// Drain ends all connections. In mode Soak another manager serves the same address
// when it returns.
func (s *server) Drain(*control.Command) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m := s.manager()
	addr := m.Addr()
	if err := errors.Join(m.Shutdown(ctx), <-s.run); err != nil {
		return err
	}
	if s.cfg.Mode != control.Soak {
		return nil
	}
	return s.start(ws.WithListenAddr("tcp://" + addr.String()))
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
