//go:build linux

package sim

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

const (
	stalledShare = 20 // of these connections, one stalls
	largeRoom    = 1000
	smallRoom    = 10
	batch        = 64      // publishes outstanding in a batch
	least        = 200_000 // operations that are timed at least, over several rounds if need be
	// tick is the resolution of the library's timers with default timeouts.
	tick      = 250 * time.Millisecond
	heartbeat = 30 * time.Second
)

// config is the argument of a process that simulates.
type config struct {
	Conns, Rooms, Size, Loops int
	Profile                   string
}

// step is its result. Bytes and times are for one connection, ping,
// join, leave or delivery.
type step struct {
	Conns, Loops int

	HeapPlain, RSSPlain float64 // with ID, registry and timer
	HeapRoom, RSSRoom   float64 // in one room, too
	HeapRooms, RSSRooms float64 // in all rooms
	HeapStalled         float64 // more, with a full queue
	PeakRSS             float64 // of the process

	ConnectMicros, JoinMicros, LeaveMicros, DrainMicros float64

	ReceiveNanos           float64
	OneNanos, BatchNanos   float64 // one room
	ShuffledNanos          float64 // the same as OneNanos, members in a random order
	StalledNanos           float64 // to clients that do not read
	LargeNanos, SmallNanos float64 // many rooms
	PlacedNanos            float64 // small rooms whose members share a loop
	PingNanos              float64
	PingCores              float64 // of a core, for the pings of all

	TaskNanos  float64 // a message that a worker handles
	GrantNanos float64 // a publish that waits for space behind many
	BlockNanos float64 // a full socket that becomes writable

	Pings, Stalled, Deliveries, Dropped uint64
	Seconds                             float64
}

// simulation is a manager with connections that need no sockets.
type simulation struct {
	config
	net     *ws.Simnet
	manager *ws.Manager
	payload []byte
	clients []*ws.Client // by the peer's number: in the order of connecting
	step    step
	began   time.Time
	heap    float64 // before the first connection
	rss     float64
}

// Simulate is the hidden command: it runs one step and prints a step.
func Simulate(arg string, out io.Writer) error {
	s := &simulation{net: ws.NewSimnet(), began: time.Now()}
	if err := json.Unmarshal([]byte(arg), &s.config); err != nil {
		return err
	}
	var err error
	s.manager, err = ws.NewManager(ws.WithHandlerMode(ws.Inline), ws.WithMaxConnections(s.Conns), ws.WithLoops(s.Loops),
		func(c *ws.Config) {
			c.Simnet, c.HeartbeatInterval = s.net, heartbeat
			c.Broadcast.Timeout = time.Minute // a fan-out to all takes its time
		})
	if err != nil {
		return err
	}
	s.manager.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
		s.clients[binary.LittleEndian.Uint32(payload)] = c
	})
	if s.Profile != "" {
		f, err := os.Create(s.Profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	run := make(chan error, 1)
	go func() { run <- s.manager.Run() }() // ends with drain
	for _, phase := range []struct {
		name string
		run  func() error
	}{
		{"connect", s.connect},
		{"receive", s.receive},
		{"join and leave", s.joinOne},
		{"join more rooms", s.joinMore},
		{"stall", s.stall},
		{"fan out to one room", s.fanOutAll},
		{"fan out to many rooms", s.fanOutMany},
		{"ping", s.ping},
		{"drain", s.drain},
		{"tasks, grants and full sockets", s.shared},
	} {
		if err := phase.run(); err != nil {
			return fmt.Errorf("%d connections, %s: %w", s.Conns, phase.name, err)
		}
		fmt.Fprintf(os.Stderr, "sim: %d connections, %5.1f s: %s done\n", s.Conns, time.Since(s.began).Seconds(), phase.name)
	}
	if err := <-run; err != nil {
		return err
	}
	pprof.StopCPUProfile()
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	s.step.Conns, s.step.PeakRSS = s.Conns, float64(ru.Maxrss<<10)
	s.step.Seconds = time.Since(s.began).Seconds()
	return json.NewEncoder(out).Encode(&s.step)
}

// cpu returns the CPU time of fn and of the work that it causes.
func (s *simulation) cpu(fn func() error) (time.Duration, error) {
	start := control.CPUTime()
	err := fn()
	s.net.Wait()
	return control.CPUTime() - start, err
}

// settle returns heap and RSS after garbage collection.
func (s *simulation) settle() (heap, rss float64) {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	var size, resident int
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(b), &size, &resident)
	}
	return float64(ms.HeapAlloc), float64(resident * os.Getpagesize())
}

// perConn returns heap and RSS for each connection.
func (s *simulation) perConn() (heap, rss float64) {
	heap, rss = s.settle()
	return (heap - s.heap) / float64(s.Conns), (rss - s.rss) / float64(s.Conns)
}

// rounds is how often something is done to n, so that it can be timed.
func rounds(n int) int { return max(1, least/n) }

// request is the upgrade request of every peer.
var request = []byte("GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")

// connect opens the connections by real upgrade requests.
func (s *simulation) connect() error {
	s.payload = make([]byte, s.Size)
	s.clients = make([]*ws.Client, s.Conns)
	clear(s.clients) // its memory is there before it is measured
	s.net.Wait()     // for the loops
	s.heap, s.rss = s.settle()
	spent, err := s.cpu(func() error {
		s.net.Connect(s.Conns, request)
		return nil
	})
	if err != nil {
		return err
	}
	s.step.ConnectMicros = result.Micros(spent) / float64(s.Conns)
	s.step.Loops = len(s.manager.Stats().Loops)
	if n := s.manager.GetClientCount(); n != s.Conns {
		return fmt.Errorf("%d are connected", n)
	}
	s.step.HeapPlain, s.step.RSSPlain = s.perConn()
	return nil
}

// receive lets every peer send a message, by which its client becomes known.
func (s *simulation) receive() error {
	const size = 6 + 4 // header, a masking key of zeros, and the number
	n := rounds(s.Conns)
	var total time.Duration
	for range n {
		frames := make([]byte, 0, size*s.Conns)
		for peer := range s.Conns {
			frames = append(frames, 0x82, 0x84, 0, 0, 0, 0)
			frames = binary.LittleEndian.AppendUint32(frames, uint32(peer))
		}
		spent, err := s.cpu(func() error {
			for peer := range s.Conns {
				s.net.Send(peer, frames[peer*size:(peer+1)*size])
			}
			return nil
		})
		if err != nil {
			return err
		}
		total += spent
	}
	s.step.ReceiveNanos = float64(total) / float64(n*s.Conns)
	if got := s.manager.Stats().Total.MessagesIn; got != uint64(n*s.Conns) || slices.Contains(s.clients, nil) {
		return fmt.Errorf("%d messages were received", got)
	}
	return nil
}

// everybody is the room of all.
const everybody = "everybody"

// joinAll puts every client into one of the rooms, which have members clients each.
func (s *simulation) joinAll(name string, members int) error {
	for i, c := range s.clients {
		if err := c.JoinRoom(simRoom(name, i/members)); err != nil {
			return err
		}
	}
	return nil
}

// leaveAll is the reverse of joinAll.
func (s *simulation) leaveAll(name string, members int) error {
	for i, c := range s.clients {
		c.LeaveRoom(simRoom(name, i/members))
	}
	return nil
}

// simRoom returns the name of a room.
func simRoom(name string, number int) string { return name + "-" + strconv.Itoa(number) }

// simRooms returns the number of rooms that all clients fill.
func (s *simulation) simRooms(members int) int { return (s.Conns + members - 1) / members }

// joinOne joins and leaves one room, and joins it for good.
func (s *simulation) joinOne() error {
	var joining, leaving time.Duration
	n := rounds(s.Conns)
	for i := range n + 1 {
		spent, err := s.cpu(func() error { return s.joinAll(everybody, s.Conns) })
		if err != nil {
			return err
		}
		joining += spent
		if i == n {
			break
		}
		if spent, err = s.cpu(func() error { return s.leaveAll(everybody, s.Conns) }); err != nil {
			return err
		}
		leaving += spent
	}
	s.step.JoinMicros = result.Micros(joining) / float64((n+1)*s.Conns)
	s.step.LeaveMicros = result.Micros(leaving) / float64(n*s.Conns)
	if r, ok := s.manager.GetRoom(simRoom(everybody, 0)); !ok || r.MemberCount() != s.Conns {
		return errors.New("not all are in the room")
	}
	s.step.HeapRoom, s.step.RSSRoom = s.perConn()
	return nil
}

// joinMore joins the other rooms.
func (s *simulation) joinMore() error {
	for kind := range s.Rooms - 1 {
		if _, err := s.cpu(func() error { return s.joinAll(largeRooms(kind), largeRoom) }); err != nil {
			return err
		}
	}
	s.step.HeapRooms, s.step.RSSRooms = s.perConn()
	return nil
}

// ping lets the clock run through whole heartbeat intervals.
func (s *simulation) ping() error {
	n := rounds(s.Conns)
	before := s.net.Stats().Pings
	spent, err := s.cpu(func() error {
		for range time.Duration(n) * heartbeat / tick {
			s.net.Advance(tick)
			s.net.Wait()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.step.Pings = s.net.Stats().Pings - before
	if s.step.Pings != uint64(n*s.Conns) {
		return fmt.Errorf("%d pings in %d intervals", s.step.Pings, n)
	}
	s.step.PingNanos = float64(spent) / float64(s.step.Pings)
	s.step.PingCores = spent.Seconds() / float64(n) / heartbeat.Seconds()
	return nil
}

// drain closes all by Shutdown.
func (s *simulation) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	spent, err := s.cpu(func() error { return s.manager.Shutdown(ctx) })
	if err != nil {
		return err
	}
	s.step.DrainMicros = result.Micros(spent) / float64(s.Conns)
	if n := s.net.Stats().Closes; n != uint64(s.Conns) {
		return fmt.Errorf("%d close frames", n)
	}
	return nil
}
