//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
)

// session holds the options that all commands have, and the state of a run. Not
// safe for concurrent use.
type session struct {
	serverOptions
	path        string // native or http; empty if the flag is not set
	clientLoops int
	procs       int       // -procs
	part        *part     // which of them this process is, or nil
	progress    *progress // or nil
}

func newSession() session { return session{clientLoops: runtime.NumCPU(), procs: 1} }

// flags declares the flags that all commands have.
func (s *session) flags(fs *flag.FlagSet) {
	s.serverOptions.flags(fs)
	fs.StringVar(&s.path, "path", s.path, "`native` or http: who accepts and upgrades (idle: both unless set)")
	fs.IntVar(&s.clientLoops, "client-loops", s.clientLoops, "epoll loops of the load generator")
}

func (s *session) validate() error {
	if s.path != "" && s.path != "native" && s.path != "http" {
		return fmt.Errorf("bench: -path is %q, must be native or http", s.path)
	}
	return atLeast("-client-loops", s.clientLoops, 1)
}

// setDefaults sets the path and the connections if they are not set, and takes
// this process's share of the connections.
func (s *session) setDefaults(conns *int, unset int) {
	*conns = s.part.share(cmp.Or(*conns, unset))
	s.path = cmp.Or(s.path, "native")
}

// start runs a server and a load generator for it. The caller calls stop.
func (s *session) start(ctx context.Context, path string, conns int, cfg control.Config, t func(i int) traffic) (srv *server, g *generator, stop func(), err error) {
	srv, err = s.launch(ctx, conns, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err = newGenerator(srv.addr(path), s.clientLoops, conns, cfg.Compress, t)
	if err != nil {
		srv.stop()
		return nil, nil, nil, err
	}
	return srv, g, func() { g.stop(); srv.stop() }, nil
}

// launch starts a server for so many connections.
func (s *session) launch(ctx context.Context, conns int, cfg control.Config) (*server, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(conns)+200 > limit.Cur {
		return nil, fmt.Errorf("%d connections need a higher ulimit -n than %d", conns, limit.Cur)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = conns + 16
	}
	return startServer(ctx, &s.serverOptions, cfg)
}

// atLeast returns an error if a flag's value is lower than the least.
func atLeast[T cmp.Ordered](name string, value, least T) error {
	if value < least {
		return fmt.Errorf("bench: %s is %v, must be at least %v", name, value, least)
	}
	return nil
}

// validSize checks -size.
func validSize(size int) error {
	if size < control.StampBytes || size > 1<<20 {
		return fmt.Errorf("bench: -size is %d, must be between %d and 1048576", size, control.StampBytes)
	}
	return nil
}

// validSlow checks -stalled and -trickle.
func validSlow(stalled, trickle float64, compare bool) error {
	if stalled < 0 || trickle < 0 || stalled+trickle >= 100 || (compare && stalled+trickle == 0) {
		return errors.New("bench: -stalled and -trickle must be at least 0 and below 100 together, and above 0 with -compare")
	}
	return nil
}
