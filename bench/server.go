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
	"strconv"
	"time"
)

// serverConfig is the argument of the hidden command serve.
type serverConfig struct {
	Echo           bool
	MaxConnections int
	Loops          int
	Queue, Ring    int
	QueueBytes     int64
	ProfileHeap    bool
	Compress       bool
}

// command is one line to the server; a report is its answer.
type command struct {
	Name        string // report, queues, settle, publish, stop, fill, profile, heap
	Size        int
	Count       int     // fill: so many messages
	Outstanding int     // publish: so many unacknowledged at once ...
	Rate        float64 // ... or so many a second, or else without a pause
	File        string  // profile: begin; empty: end
}

// report is what the server process says of itself. The counts are from its
// start.
type report struct {
	Error        string `json:",omitempty"`
	Native, HTTP string `json:",omitempty"` // addresses, in the first line only

	At         int64         // monotonicNow
	CPU        time.Duration // user and system
	Switches   int64         // context switches
	RSS        uint64
	HeapAlloc  uint64
	HeapInuse  uint64
	Objects    uint64
	Stacks     uint64
	Goroutines int

	Clients, Members                          int
	Writes, WakeUps, Tasks, Dropped, Messages uint64
	Published, PublishErrors                  uint64

	// In the answers to queues and settle only.
	Backlogged  int    // clients that have messages queued
	QueuedBytes uint64 // of all clients
}

// server is the load generator's end of a server process.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	report
}

// startServer runs this program once more, as a server.
func startServer(ctx context.Context, o *options, cfg serverConfig) (*server, error) {
	cfg.Loops, cfg.Queue, cfg.Ring, cfg.ProfileHeap = o.loops, o.queue, o.ring, o.memprofile != ""
	cfg.Compress = o.compress
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "serve", string(arg))
	cmd.Stderr = os.Stderr
	if o.procs > 0 {
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.procs))
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
	if err := s.out.Decode(&s.report); err != nil {
		s.stop()
		return nil, fmt.Errorf("bench: server did not start: %w", err)
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "server process %d\n", cmd.Process.Pid)
	}
	return s, nil
}

// call sends one command and waits for its report.
func (s *server) call(c command) (*report, error) {
	if err := json.NewEncoder(s.in).Encode(c); err != nil {
		return nil, fmt.Errorf("bench: server: %w", err)
	}
	r := new(report)
	if err := s.out.Decode(r); err != nil {
		return nil, fmt.Errorf("bench: server: %w", err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("bench: server: %s", r.Error)
	}
	return r, nil
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
