//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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
// joinByte. An acknowledgement is ackByte and the sequence number, 8 bytes. What
// begins with echoByte is sent back.
const (
	benchRoom = "bench"
	joinByte  = 'j'
	ackByte   = 'a'
	echoByte  = 'e'
)

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
	patient := func(c *ws.Config) { c.HeartbeatTimeout = time.Hour } // a stalled client answers no ping
	opts := []ws.Option{
		ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithHandlerMode(ws.Inline),
		ws.WithMaxConnections(cfg.MaxConnections), ws.WithLoops(cfg.Loops), patient,
	}
	if cfg.Compress {
		opts = append(opts, ws.WithEnableCompression(true))
	}
	if cfg.Queue > 0 {
		opts = append(opts, ws.WithMessageQueueSize(cfg.Queue))
	}
	if cfg.QueueBytes > 0 {
		opts = append(opts, ws.WithQueueBytes(cfg.QueueBytes))
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
	case echoByte:
		_ = c.SendBinary(payload) // the client would miss it
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
		if c.Name == "queues" || c.Name == "settle" {
			s.measureQueues(r)
		}
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
	case "report", "queues":
		return nil
	case "settle": // free what is garbage, so that memory can be measured
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
		return nil
	case "publish":
		p := newPublisher(s, c)
		s.publisher.Store(p)
		go p.run() // owned by the servant: the command stop ends it
		return nil
	case "stop":
		p := s.publisher.Swap(nil)
		close(p.stop)
		<-p.stopped
		return nil
	case "fill":
		s.fill(c.Size, c.Count)
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

// measureQueues looks at every client's queue, which takes too long for a
// report that is made while a load runs.
func (s *servant) measureQueues(r *report) {
	s.manager.RangeClients(func(c *ws.Client) bool {
		if n := c.QueuedBytes(); n > 0 {
			r.Backlogged++
			r.QueuedBytes += uint64(n)
		}
		return true
	})
}

// fill publishes n messages and waits until the event loops have done with them
// what they can: have sent, queued or dropped them.
func (s *servant) fill(size, n int) {
	p := &publisher{servant: s}
	payload := make([]byte, size)
	for range n {
		p.publish(payload, monotonicNow())
	}
	s.quiesce()
}

// quiesce waits until the event loops have neither run a task nor written for
// some time: a single look could find a loop that the kernel had no processor
// for.
func (s *servant) quiesce() {
	var tasks, writes uint64
	for same := 0; same < 4; {
		time.Sleep(2 * time.Millisecond)
		st := s.manager.Stats().Total
		if st.InboxLen > 0 || st.Tasks != tasks || st.Writes != writes {
			tasks, writes, same = st.Tasks, st.Writes, 0
			continue
		}
		same++
	}
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
