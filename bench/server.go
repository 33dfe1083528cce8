//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
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

// startServer runs this program once more, as a server, or the one of o.serve.
func startServer(ctx context.Context, o *options, cfg control.Config) (*server, error) {
	cfg.Loops, cfg.Queue, cfg.Ring, cfg.ProfileHeap = o.loops, o.queue, o.ring, o.memprofile != ""
	cfg.Compress = cfg.Compress || o.compress
	cfg.Batch, cfg.RoomShards, cfg.Unsent = o.batch, o.roomShards, o.unsent
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	program := o.serve
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
