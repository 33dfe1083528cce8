//go:build linux

package command

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/server"
)

// Session holds the options that all commands have, and the state of a run. Not
// safe for concurrent use.
type Session struct {
	server.Options
	Path        string // native or http; empty if the flag is not set
	ClientLoops int
	Procs       int       // -procs
	Part        *Part     // which of them this process is, or nil
	Progress    *progress // or nil
}

// NewSession returns a session with the defaults of all flags.
func NewSession() Session { return Session{ClientLoops: runtime.NumCPU(), Procs: 1} }

// Flags declares the flags that all commands have.
func (s *Session) Flags(fs *flag.FlagSet) {
	s.Options.Flags(fs)
	fs.StringVar(&s.Path, "path", s.Path,
		"`native` or http: the listener that accepts and upgrades (idle: both unless set)")
	fs.IntVar(&s.ClientLoops, "client-loops", s.ClientLoops, "epoll loops of the load generator")
}

// Validate returns an error if an option is out of range.
func (s *Session) Validate() error {
	if s.Path != "" && s.Path != "native" && s.Path != "http" {
		return fmt.Errorf("bench: -path is %q, must be native or http", s.Path)
	}
	return AtLeast("-client-loops", s.ClientLoops, 1)
}

// SetDefaults sets the path and the connections if they are not set, and takes
// this process's share of the connections.
func (s *Session) SetDefaults(conns *int, unset int) {
	*conns = s.Part.Share(cmp.Or(*conns, unset))
	s.Path = cmp.Or(s.Path, "native")
}

// Start runs a server and a load generator for it. The caller calls stop.
func (s *Session) Start(ctx context.Context, path string, conns int, cfg control.Config,
	t func(i int) load.Traffic,
) (srv *server.Process, g *load.Generator, stop func(), err error) {
	srv, err = s.Launch(ctx, conns, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err = load.NewGenerator(srv.Addr(path), s.ClientLoops, conns, cfg.Compress, t)
	if err != nil {
		srv.Stop()
		return nil, nil, nil, err
	}
	return srv, g, func() { g.Stop(); srv.Stop() }, nil
}

// Launch starts a server for conns connections.
func (s *Session) Launch(ctx context.Context, conns int, cfg control.Config) (*server.Process, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(conns)+200 > limit.Cur {
		return nil, fmt.Errorf("%d connections need a higher ulimit -n than %d", conns, limit.Cur)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = conns + 16
	}
	return server.Start(ctx, &s.Options, cfg)
}
