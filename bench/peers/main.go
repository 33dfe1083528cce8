// Command peers is a server under load, like the server of bench, built on other
// libraries: the bench command compare starts it. Each library is used as its
// own documentation says; the comment of its file says where.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/qi-realtime/ws/bench/control"
)

// library is one of the peers.
type library struct {
	name, module string
	modes        []string // of control.Config that it has besides Rooms and Echo
	// start serves on a free port of 127.0.0.1 until the process ends.
	start func(cfg *control.Config, host *control.Host) (s control.Server, addr string, err error)
}

var libraries = []library{
	{"gorilla", "github.com/gorilla/websocket", []string{control.JSON}, startGorilla},
	{"gws", "github.com/lxzan/gws", []string{control.Noop}, startGWS},
	{"nbio", "github.com/lesismal/nbio", nil, startNBIO},
	{"greatws", "github.com/antlabs/greatws", nil, startGreatws},
	{"gobwas", "github.com/gobwas/ws", nil, startGobwas},
	{"coder", "github.com/coder/websocket", nil, startCoder},
	{"melody", "github.com/olahol/melody", nil, startMelody},
	{"centrifuge", "github.com/centrifugal/centrifuge", nil, startCentrifuge},
}

const usage = "usage: peers list\n       peers serve LIBRARY CONFIG-JSON"

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the command line args.
func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "list":
		for _, l := range libraries {
			fmt.Fprintf(out, "%s\t%s\n", l.name, l.version())
		}
		return nil
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2], in, out)
	}
	return errors.New(usage)
}

// serve is a server process: it obeys the commands of in until there are no more.
func serve(name, arg string, in io.Reader, out io.Writer) error {
	var cfg control.Config
	if err := json.Unmarshal([]byte(arg), &cfg); err != nil {
		return fmt.Errorf("peers: configuration: %w", err)
	}
	l, err := find(name)
	if err != nil {
		return err
	}
	if err := l.check(&cfg); err != nil {
		return err
	}
	if cfg.ProfileHeap {
		runtime.MemProfileRate = 512
	}
	host := new(control.Host)
	s, addr, err := l.start(&cfg, host)
	if err != nil {
		return fmt.Errorf("peers: %s: %w", name, err)
	}
	hello := &control.Report{Native: addr, HTTP: addr, Library: l.name + " " + l.version()}
	return host.Serve(s, hello, in, out)
}

func find(name string) (*library, error) {
	for i := range libraries {
		if libraries[i].name == name {
			return &libraries[i], nil
		}
	}
	return nil, fmt.Errorf("peers: no library %q; peers list shows those that there are", name)
}

// check refuses a configuration that the server does not support.
func (l *library) check(cfg *control.Config) error {
	switch {
	case cfg.Mode != control.Rooms && cfg.Mode != control.Echo && !slices.Contains(l.modes, cfg.Mode):
		return fmt.Errorf("peers: %s has no mode %q here", l.name, cfg.Mode)
	case cfg.Compress || cfg.TLS || cfg.Authenticate || cfg.JoinRooms > 0:
		return fmt.Errorf("peers: %s: compression, TLS, authentication and joining at once are not compared", l.name)
	}
	return nil
}

// version returns the version of the module that was built in.
func (l *library) version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == l.module {
			return dep.Version
		}
	}
	return "unknown"
}
