package control

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Server is a server under load.
type Server interface {
	// Publish sends payload, which is borrowed, as one binary message to all
	// members of a room. An error means that no member received it; the host
	// tries again.
	Publish(room int, payload []byte) error
	// Report fills in the figures of the library.
	Report(r *Report)
}

// Optional methods of a Server.
type (
	// preparer can publish one payload over and over more cheaply.
	preparer interface {
		Prepare(room int, payload []byte) (publish func() error)
	}
	// queuer can look at its clients' queues.
	queuer interface{ ReportQueues(r *Report) }
	// quiescer can wait until all that was published is sent, queued or dropped.
	quiescer interface{ Quiesce() }
	// concurrent can publish several messages to a room at once, in any order of their numbers, if
	// Unordered returns true.
	concurrent interface{ Unordered() bool }
	// drainer can end the connections one after the other, at a pace.
	drainer interface{ Drain(c *Command) error }
	// shutter can say goodbye to all clients and end.
	shutter interface{ Shutdown() error }
)

// Client is one connection, as far as Host.Handle needs it.
type Client interface {
	Join(room int)
	Echo(payload []byte)
}

// leaver is an optional method of a Client.
type leaver interface{ Leave(room int) }

// Host is the part of a server process that is the same for every library.
type Host struct {
	server    Server
	publisher atomic.Pointer[publisher]
	published atomic.Uint64
	errors    atomic.Uint64
	rooms     sync.Map // by number: *roomState
}

// roomState numbers the messages of a room. Safe for concurrent use.
type roomState struct {
	mu   sync.Mutex
	next uint64 // guarded by mu
}

func (h *Host) room(n int) *roomState {
	if r, ok := h.rooms.Load(n); ok {
		return r.(*roomState)
	}
	r, _ := h.rooms.LoadOrStore(n, new(roomState))
	return r.(*roomState)
}

// publish gives a message its number, and publishes it. The lock is held
// meanwhile, so that the numbers rise in every member's eyes.
func (h *Host) publish(room int, r *roomState, payload []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := h.server.(concurrent); ok && c.Unordered() {
		binary.LittleEndian.PutUint64(payload, r.next)
		r.next++
		r.mu.Unlock()
		defer r.mu.Lock()
		return h.publishNumbered(room, payload)
	}
	binary.LittleEndian.PutUint64(payload, r.next)
	if !h.publishNumbered(room, payload) {
		return false
	}
	r.next++
	return true
}

// publishNumbered publishes a message with its number, and counts it.
func (h *Host) publishNumbered(room int, payload []byte) bool {
	if h.server.Publish(room, payload) != nil {
		h.errors.Add(1)
		return false
	}
	h.published.Add(1)
	return true
}

// enterOrLeave lets a client enter or leave between two messages, and answers with
// the number of the next one.
func (h *Host) enterOrLeave(c Client, room int, leave bool) {
	r := h.room(room)
	bits := uint64(AnswerBit)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !leave {
		c.Join(room)
	} else if l, ok := c.(leaver); ok {
		l.Leave(room)
		bits |= LeftBit
	}
	answer := binary.LittleEndian.AppendUint64(nil, r.next|bits)
	c.Echo(binary.LittleEndian.AppendUint64(answer, uint64(room)))
}

// Handle executes a client's message; it may write into payload.
// Safe for concurrent use.
func (h *Host) Handle(c Client, payload []byte) {
	if len(payload) == 0 {
		return
	}
	switch body := payload[1:]; payload[0] {
	case JoinByte:
		c.Join(roomNumber(body))
	case AckByte:
		if p := h.publisher.Load(); p != nil && len(body) >= 8 {
			p.acked(roomNumber(body[8:]), binary.LittleEndian.Uint64(body))
		}
	case PublishByte:
		if room := roomNumber(body); len(body) >= 4+StampBytes {
			h.publish(room, h.room(room), body[4:])
		}
	case EnterByte, LeaveByte:
		h.enterOrLeave(c, roomNumber(body), payload[0] == LeaveByte)
	case EchoByte:
		c.Echo(payload)
	}
}

// roomNumber reads the number of a room off the end of a message.
func roomNumber(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b))
}

// Serve writes the report hello, and executes the commands of in for s until in
// ends.
func (h *Host) Serve(s Server, hello *Report, in io.Reader, out io.Writer) error {
	h.server = s
	commands, answers := json.NewDecoder(in), json.NewEncoder(out)
	if err := answers.Encode(hello); err != nil {
		return err
	}
	for {
		var c Command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		err := h.execute(&c)
		r := h.measure()
		if q, ok := s.(queuer); ok && (c.Name == "queues" || c.Name == "settle") {
			q.ReportQueues(r)
		}
		if c.Name == "workers" || c.Name == "settle" {
			r.IdleWorkers = idleWorkers()
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

func (h *Host) execute(c *Command) error {
	switch c.Name {
	case "report", "queues", "workers":
		return nil
	case "settle":
		settle()
		return nil
	case "mark": // PeakRSS begins anew (proc(5), clear_refs)
		settle()
		return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200)
	case "publish":
		p := newPublisher(h, c)
		h.publisher.Store(p)
		go p.run() // owned by the host: the command stop ends it
		return nil
	case "stop":
		if p := h.publisher.Swap(nil); p != nil {
			close(p.stop)
			<-p.stopped
		}
		return nil
	case "fill":
		h.fill(c)
		if q, ok := h.server.(quiescer); ok {
			q.Quiesce()
		}
		return nil
	case "drain":
		d, ok := h.server.(drainer)
		if !ok {
			return errors.New("this library has no drain")
		}
		h.fill(c)
		return d.Drain(c)
	case "shutdown":
		s, ok := h.server.(shutter)
		if !ok {
			return errors.New("this library has no shutdown")
		}
		return s.Shutdown()
	case "heap":
		return writeHeap(c.File)
	case "profile":
		return profile(c.File)
	}
	return fmt.Errorf("unknown command %q", c.Name)
}

// writeHeap writes the heap profile into file.
func writeHeap(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return pprof.Lookup("heap").WriteTo(f, 0)
}

// profile begins the CPU profile, into file, or ends it if file is empty.
func profile(file string) error {
	if file == "" {
		pprof.StopCPUProfile()
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f)
}

// settle frees garbage, so that memory can be measured.
func settle() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

// measure makes a report. The memory statistics stop the world, for some
// microseconds.
func (h *Host) measure() *Report {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	r := &Report{
		At: Now(), CPU: CPUTime(), Switches: ru.Nvcsw + ru.Nivcsw, RSS: residentBytes(), PeakRSS: peakBytes(),
		Anonymous: anonymousBytes(),
		HeapAlloc: ms.HeapAlloc, HeapInuse: ms.HeapInuse, Objects: ms.HeapObjects, Stacks: ms.StackInuse,
		Mallocs: ms.Mallocs, TotalAlloc: ms.TotalAlloc,
		Goroutines: runtime.NumGoroutine(), Descriptors: openDescriptors(), Published: h.published.Load(),
		PublishErrors: h.errors.Load(),
	}
	if b, err := os.ReadFile("/proc/self/io"); err == nil {
		r.ReadCalls, r.WriteCalls = procCount(b, "syscr:"), procCount(b, "syscw:")
	}
	h.server.Report(r)
	return r
}

// fill publishes some messages to each room.
func (h *Host) fill(c *Command) {
	p := newPublisher(h, c)
	payload := make([]byte, c.Size)
	for range c.Count * len(p.rooms) {
		p.publish(payload, Now())
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
		if kb := procCount(b, from[1]); kb > 0 {
			return kb << 10
		}
	}
	return 0
}

// anonymousBytes is the part of this process's RSS that is no page of a file, 0 if
// the kernel does not say it. The program's own pages come in when the code in
// them first runs, which adds some hundred KB to the RSS of any load.
func anonymousBytes() uint64 {
	b, _ := os.ReadFile("/proc/self/smaps_rollup")
	return procCount(b, "Anonymous:") << 10
}

// peakBytes is the highest RSS that this process has had since its start, or
// since the command mark.
func peakBytes() uint64 {
	b, _ := os.ReadFile("/proc/self/status")
	return procCount(b, "VmHWM:") << 10
}

// openDescriptors is how many descriptors this process has, without that which
// counting them takes.
func openDescriptors() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return max(0, len(files)-1)
}

// idleWorkers counts the goroutines of gnet's process-wide pool that wait for work. They
// end when they have been idle for 10 to 20 s.
func idleWorkers() (n int) {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return 0
	}
	count := 0 // of the goroutines whose innermost function comes next
	for line := range strings.Lines(b.String()) {
		if head, _, ok := strings.Cut(line, " @ "); ok {
			count, _ = strconv.Atoi(head)
		} else if strings.HasPrefix(line, "#") {
			if strings.Contains(line, "/ants/v2.(*goWorker).run.") {
				n += count
			}
			count = 0
		}
	}
	return n
}

// procCount returns the number behind key in a file of /proc, or 0.
func procCount(text []byte, key string) uint64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				n, _ := strconv.ParseUint(words[0], 10, 64)
				return n
			}
		}
	}
	return 0
}
