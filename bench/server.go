//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
)

// benchRoom is the one room; members join it by a message of the byte
// joinByte. An acknowledgement is ackByte and the sequence number, 8 bytes.
const (
	benchRoom = "bench"
	joinByte  = 'j'
	ackByte   = 'a'
)

// serverConfig is the argument of the hidden command serve.
type serverConfig struct {
	Echo           bool
	MaxConnections int
	Loops          int
	Queue, Ring    int
	ProfileHeap    bool
}

// command is one line to the server; a report is its answer.
type command struct {
	Name        string // report, settle, publish, stop, profile, heap
	Size        int
	Outstanding int     // publish: so many unacknowledged at once ...
	Rate        float64 // ... or so many a second
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

// servant is the server process.
type servant struct {
	manager   *ws.Manager
	publisher atomic.Pointer[publisher]
	published atomic.Uint64 // the next sequence number
	errors    atomic.Uint64
}

// serve is the hidden command: it runs until its standard input ends.
func serve(arg string, in io.Reader, out io.Writer) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(arg), &cfg); err != nil {
		return err
	}
	if cfg.ProfileHeap {
		runtime.MemProfileRate = 512
	}
	opts := []ws.Option{
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithHandlerMode(ws.Inline),
		ws.WithMaxConnections(cfg.MaxConnections), ws.WithLoops(cfg.Loops),
	}
	if cfg.Queue > 0 {
		opts = append(opts, ws.WithMessageQueueSize(cfg.Queue))
	}
	if cfg.Ring > 0 {
		opts = append(opts, func(c *ws.Config) { c.Broadcast.QueueSize = cfg.Ring })
	}
	m, err := ws.NewManager(opts...)
	if err != nil {
		return err
	}
	s := &servant{manager: m}
	if cfg.Echo {
		m.HandleRaw(echo)
	} else {
		m.HandleRaw(s.handle)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _ = m.HandleUpgrade(w, r) })
	go func() { _ = http.Serve(ln, mux) }() // ends with the process
	run := make(chan error, 1)
	go func() { run <- m.Run() }() // ends with the process
	addr := m.Addr()
	if addr == nil {
		return <-run
	}
	hello := report{Native: addr.String(), HTTP: ln.Addr().String()}
	if err := json.NewEncoder(out).Encode(&hello); err != nil {
		return err
	}
	return s.obey(in, out)
}

// echo is the whole echo server.
func echo(c *ws.Client, op ws.Opcode, payload []byte) {
	if op == ws.OpBinary {
		_ = c.SendBinary(payload) // the client would miss it
		return
	}
	_ = c.SendBytes(payload)
}

// handle takes the messages of a room's members and of the load generator's
// control connection.
func (s *servant) handle(c *ws.Client, _ ws.Opcode, payload []byte) {
	switch payload[0] {
	case joinByte:
		_ = c.JoinRoom(benchRoom) // the load generator counts members
	case ackByte:
		if p := s.publisher.Load(); p != nil {
			p.acked(binary.LittleEndian.Uint64(payload[1:]))
		}
	}
}

// obey answers commands until there are no more.
func (s *servant) obey(in io.Reader, out io.Writer) error {
	commands, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		err := s.execute(&c)
		r := s.measure()
		if err != nil {
			r.Error = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

func (s *servant) execute(c *command) error {
	switch c.Name {
	case "report":
		return nil
	case "settle": // free what is garbage, so that memory can be measured
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
		return nil
	case "publish":
		p := &publisher{
			servant: s, first: s.published.Load(), size: c.Size, outstanding: c.Outstanding,
			stop: make(chan struct{}), stopped: make(chan struct{}),
		}
		if c.Rate > 0 {
			p.interval = time.Duration(float64(time.Second) / c.Rate)
		} else {
			p.credits = make(chan struct{}, c.Outstanding)
		}
		s.publisher.Store(p)
		go p.run() // owned by the servant: the command stop ends it
		return nil
	case "stop":
		p := s.publisher.Swap(nil)
		close(p.stop)
		<-p.stopped
		return nil
	case "heap":
		f, err := os.Create(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		return pprof.Lookup("heap").WriteTo(f, 0)
	case "profile":
		if c.File == "" {
			pprof.StopCPUProfile()
			return nil
		}
		f, err := os.Create(c.File)
		if err != nil {
			return err
		}
		return pprof.StartCPUProfile(f)
	}
	return fmt.Errorf("unknown command %q", c.Name)
}

// measure makes a report. The memory statistics stop the world, for some
// microseconds.
func (s *servant) measure() *report {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	st := s.manager.Stats()
	r := &report{
		At: monotonicNow(), CPU: cpuTime(), Switches: ru.Nvcsw + ru.Nivcsw, RSS: residentBytes(),
		HeapAlloc: ms.HeapAlloc, HeapInuse: ms.HeapInuse, Objects: ms.HeapObjects, Stacks: ms.StackInuse,
		Goroutines: runtime.NumGoroutine(), Clients: st.Clients,
		Writes: st.Total.Writes, WakeUps: st.Total.WakeUps, Tasks: st.Total.Tasks,
		Dropped: st.Total.Drops.Lost(), Messages: st.Total.MessagesOut,
		Published: s.published.Load(), PublishErrors: s.errors.Load(),
	}
	if room, ok := s.manager.GetRoom(benchRoom); ok {
		r.Members = room.MemberCount()
	}
	return r
}

// residentBytes is this process's RSS, exactly (smaps_rollup) if the kernel
// says it, else VmRSS, which may lag by some hundred KB.
func residentBytes() uint64 {
	for _, from := range [][2]string{{"/proc/self/smaps_rollup", "Rss:"}, {"/proc/self/status", "VmRSS:"}} {
		b, err := os.ReadFile(from[0])
		if err != nil {
			continue
		}
		if kb, ok := procField(string(b), from[1]); ok {
			n, _ := strconv.ParseUint(kb, 10, 64)
			return n << 10
		}
	}
	return 0
}

// procField returns the first word behind key in a file of /proc.
func procField(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0], true
			}
		}
	}
	return "", false
}

// publisher sends stamped messages to the room.
type publisher struct {
	servant     *servant
	first       uint64 // sequence number; acknowledgements of earlier ones are late
	size        int
	outstanding int
	credits     chan struct{} // nil at a fixed rate
	interval    time.Duration
	stop        chan struct{}
	stopped     chan struct{}
}

// acked runs on an event loop: it must not block.
func (p *publisher) acked(seq uint64) {
	if seq < p.first || p.credits == nil {
		return
	}
	select {
	case p.credits <- struct{}{}:
	default:
	}
}

// run publishes until stop. At a fixed rate a message carries the time at which
// it was due, so that a publisher that falls behind does not hide it.
func (p *publisher) run() {
	defer close(p.stopped)
	for range cap(p.credits) {
		p.credits <- struct{}{}
	}
	payload := make([]byte, p.size)
	timer := time.NewTimer(0)
	due := monotonicNow()
	for {
		select {
		case <-p.stop:
			return
		case <-p.credits:
			due = monotonicNow()
		case <-timer.C:
			if p.credits != nil {
				continue
			}
		}
		p.publish(payload, due)
		if p.credits == nil {
			due += int64(p.interval)
			timer.Reset(time.Duration(due - monotonicNow()))
		}
	}
}

func (p *publisher) publish(payload []byte, due int64) {
	s := p.servant
	binary.LittleEndian.PutUint64(payload, s.published.Load())
	binary.LittleEndian.PutUint64(payload[8:], uint64(due))
	for s.manager.BroadcastPrepared(benchRoom, ws.Prepare(ws.OpBinary, payload), nil) != nil {
		s.errors.Add(1)
		select {
		case <-p.stop:
			return
		default:
		}
	}
	s.published.Add(1)
}
