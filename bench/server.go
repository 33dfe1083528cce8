//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"

	"github.com/qi-realtime/ws/bench/control"
)

// server is the load generator's end of a server process.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	control.Report
}

// serverOptions are the settings of server processes. 0 is the library's default.
type serverOptions struct {
	loops, queue, ring, batch, roomShards int
	unsent                                int // -1 is no bound
	maxprocs                              int
	program                               []string // its name and arguments; nil is this program
	verbose                               bool
}

// flags declares the flags that all commands have.
func (o *serverOptions) flags(fs *flag.FlagSet) {
	fs.BoolVar(&o.verbose, "v", o.verbose, "print the server's process ID and what is going on to standard error")
	fs.IntVar(&o.maxprocs, "maxprocs", o.maxprocs, "GOMAXPROCS of the server; 0 leaves it alone")
	fs.IntVar(&o.queue, "queue", o.queue, "WithMessageQueueSize; 0 is the library's default")
	fs.IntVar(&o.unsent, "unsent", o.unsent, "WithUnsentBytes; 0 is the library's default, -1 no bound")
}

// settingFlags declares the flags of the settings that sweep and tune vary.
func (o *serverOptions) settingFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.loops, "loops", o.loops, "event loops of the server; 0 is GOMAXPROCS, or 1 for fair")
	fs.IntVar(&o.ring, "ring", o.ring, "BroadcastConfig.QueueSize; 0 is the library's default")
	fs.IntVar(&o.batch, "batch", o.batch, "BroadcastConfig.BatchSize; 0 is the library's default")
	fs.IntVar(&o.roomShards, "room-shards", o.roomShards, "WithRoomShards, a power of two; 0 is the library's default")
}

// startServer runs this program once more, as a server, or the one of the options.
func startServer(ctx context.Context, o *serverOptions, cfg control.Config) (*server, error) {
	cfg.Loops, cfg.Queue, cfg.Ring = o.loops, o.queue, o.ring
	cfg.Batch, cfg.RoomShards, cfg.Unsent = o.batch, o.roomShards, o.unsent
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	program := o.program
	if program == nil {
		program = []string{os.Args[0], "serve"}
	}
	args := append(slices.Clone(program[1:]), string(arg))
	cmd := exec.CommandContext(ctx, program[0], args...)
	cmd.Stderr = os.Stderr
	if o.maxprocs > 0 {
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.maxprocs))
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out))}
	if err := s.out.Decode(&s.Report); err != nil {
		s.stop()
		return nil, fmt.Errorf("bench: server did not start: %w", err)
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "server process %d\n", cmd.Process.Pid)
	}
	return s, nil
}

// call sends one command and waits for its report.
func (s *server) call(c control.Command) (*control.Report, error) {
	if err := json.NewEncoder(s.in).Encode(c); err != nil {
		return nil, fmt.Errorf("bench: server: %w", err)
	}
	r := new(control.Report)
	if err := s.out.Decode(r); err != nil {
		return nil, fmt.Errorf("bench: server: %w", err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("bench: server: %s", r.Error)
	}
	return r, nil
}

// profile begins the server's CPU profile, into file unless that is empty.
func (s *server) profile(file string) error {
	if file == "" {
		return nil
	}
	_, err := s.call(control.Command{Name: "profile", File: file})
	return err
}

// endProfile ends what profile began.
func (s *server) endProfile(file string) error {
	if file == "" {
		return nil
	}
	_, err := s.call(control.Command{Name: "profile"})
	return err
}

// addr is the address of the path.
func (s *server) addr(path string) string {
	if path == "http" {
		return s.HTTP
	}
	return s.Native
}

// stop ends the server process.
func (s *server) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
