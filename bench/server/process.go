//go:build linux

package server

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
	"time"

	"github.com/qi-realtime/ws/bench/control"
)

// Process is the load generator's end of a server process.
type Process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	control.Report
}

// Options are the settings of server processes. 0 is the library's default.
type Options struct {
	Loops, Queue, Ring, Batch, RoomShards int
	unsent                                int // -1 is no bound
	MaxProcs                              int
	Program                               []string // its name and arguments; nil is this program
	SingleWrites                          bool     // no batched writes
	Scrape                                time.Duration
	Verbose                               bool
}

// Flags declares the flags that all commands have.
func (o *Options) Flags(fs *flag.FlagSet) {
	fs.BoolVar(&o.Verbose, "v", o.Verbose, "print the server's process ID and the progress to standard error")
	fs.IntVar(&o.MaxProcs, "maxprocs", o.MaxProcs, "GOMAXPROCS of the server; 0 leaves it alone")
	fs.IntVar(&o.Queue, "queue", o.Queue, "WithMessageQueueSize; 0 is the library's default")
	fs.IntVar(&o.unsent, "unsent", o.unsent, "WithUnsentBytes; 0 is the library's default, -1 no bound")
	fs.DurationVar(&o.Scrape, "scrape", o.Scrape,
		"time between two snapshots of all figures that the server takes, as metrics do; 0 is none")
	fs.BoolVar(&o.SingleWrites, "single-writes", o.SingleWrites, "WithBatchedWrites(ws.Off)")
}

// SettingFlags declares the flags of the settings that sweep and tune vary.
func (o *Options) SettingFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.Loops, "loops", o.Loops, "event loops of the server; 0 is GOMAXPROCS, or 1 for fair")
	fs.IntVar(&o.Ring, "ring", o.Ring, "BroadcastConfig.QueueSize; 0 is the library's default")
	fs.IntVar(&o.Batch, "batch", o.Batch, "BroadcastConfig.BatchSize; 0 is the library's default")
	fs.IntVar(&o.RoomShards, "room-shards", o.RoomShards, "WithRoomShards, a power of two; 0 is the library's default")
}

// Start runs this program once more, as a server, or the one of the options.
func Start(ctx context.Context, o *Options, cfg control.Config) (*Process, error) {
	cfg.Loops, cfg.Queue, cfg.Ring = o.Loops, o.Queue, o.Ring
	cfg.Batch, cfg.RoomShards, cfg.Unsent = o.Batch, o.RoomShards, o.unsent
	cfg.SingleWrites, cfg.Scrape = o.SingleWrites, o.Scrape
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	program := o.Program
	if program == nil {
		program = []string{os.Args[0], "serve"}
	}
	args := append(slices.Clone(program[1:]), string(arg))
	cmd := exec.CommandContext(ctx, program[0], args...)
	cmd.Stderr = os.Stderr
	if o.MaxProcs > 0 {
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.MaxProcs))
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
	s := &Process{cmd: cmd, in: in, out: json.NewDecoder(bufio.NewReader(out))}
	if err := s.out.Decode(&s.Report); err != nil {
		s.Stop()
		return nil, fmt.Errorf("bench: server did not start: %w", err)
	}
	if o.Verbose {
		fmt.Fprintf(os.Stderr, "server process %d\n", cmd.Process.Pid)
	}
	return s, nil
}

// Call sends one command and waits for its report.
func (s *Process) Call(c control.Command) (*control.Report, error) {
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

// Profile begins the server's CPU profile, into file unless that is empty.
func (s *Process) Profile(file string) error {
	if file == "" {
		return nil
	}
	_, err := s.Call(control.Command{Name: "profile", File: file})
	return err
}

// EndProfile ends the profile that Profile began.
func (s *Process) EndProfile(file string) error {
	if file == "" {
		return nil
	}
	_, err := s.Call(control.Command{Name: "profile"})
	return err
}

// Addr is the address of the path.
func (s *Process) Addr(path string) string {
	if path == "http" {
		return s.HTTP
	}
	return s.Native
}

// Stop ends the server process.
func (s *Process) Stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
