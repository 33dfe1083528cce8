//go:build linux

package attack

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
)

// The clients beside an attack. They are 20, so that a goroutine for each of them
// takes no processor time that the attacked server would miss.
const (
	healthyClients  = 20
	healthyInterval = 50 * time.Millisecond // between messages of a client
	healthySize     = 256
	healthyLimit    = 10 * time.Second // for connecting
)

// The phases of an attack, as healthy clients see it.
const (
	phaseBefore = iota
	phaseDuring
	phaseAfter
	numPhases
)

// healthy are clients that send requests at fixed times, and check that each is
// answered, and members of a room if the attack has a stream. Safe for
// concurrent use.
type healthy struct {
	payload *load.JSONPayload
	conns   []*healthyConn
	began   int64
	phase   atomic.Int32
	over    atomic.Bool // no more messages are due
	wg      sync.WaitGroup

	mu         sync.Mutex
	rtt        [numPhases]result.Histogram // guarded by mu, as all that follows
	due        [numPhases]uint64           // messages
	answered   [numPhases]uint64
	ended      int // clients that the server closed, or whose connection failed
	reasons    map[string]int
	delivered  uint64 // messages of the stream
	disordered uint64
}

// healthyConn is one of the clients.
type healthyConn struct {
	net.Conn
	r      *bufio.Reader
	next   uint64  // answer, of the reader
	stream uint64  // message of the room, of the reader
	phases []uint8 // of each message, guarded by healthy.mu
	closed atomic.Bool
}

// newHealthy connects the clients, and lets them send.
func newHealthy(ctx context.Context, d dialer, stream bool) (*healthy, error) {
	h := &healthy{payload: load.NewJSONPayload(healthySize), reasons: make(map[string]int)}
	for i := range h.rtt {
		h.rtt[i] = result.NewHistogram()
	}
	for range healthyClients {
		c, err := d.dial(ctx)
		if err == nil && stream {
			err = c.exchange(requestFrame("stream", "1", `{}`))
		}
		if err != nil {
			h.stop()
			return nil, fmt.Errorf("a healthy client: %w", err)
		}
		h.conns = append(h.conns, c)
	}
	h.began = control.Now()
	for i, c := range h.conns {
		h.wg.Go(func() { h.write(i, c) }) // ends with stop
		h.wg.Go(func() { h.read(c) })     // ends with the connection
	}
	return h, nil
}

// stop ends the clients.
func (h *healthy) stop() {
	h.over.Store(true)
	for _, c := range h.conns {
		c.closed.Store(true)
		_ = c.Close()
	}
	h.wg.Wait()
}

// write sends the requests that are due, in time or late. A request that is due
// on a connection that has ended counts, too.
func (h *healthy) write(i int, c *healthyConn) {
	var b []byte
	for seq := uint64(0); !h.over.Load(); seq++ {
		due := h.began + int64(healthyInterval)*(int64(seq)*healthyClients+int64(i))/healthyClients
		<-time.After(time.Duration(due - control.Now()))
		phase := uint8(h.phase.Load())
		h.mu.Lock()
		c.phases = append(c.phases, phase)
		h.due[phase]++
		h.mu.Unlock()
		b = h.payload.Append(b[:0], seq, due)
		_, _ = c.Write(b) // an error ends the reader, too
	}
}

// read takes the answers.
func (h *healthy) read(c *healthyConn) {
	err := h.answers(c)
	if c.closed.Swap(true) {
		return // by stop
	}
	_ = c.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended++
	h.reasons[cause(err)]++
}

func (h *healthy) answers(c *healthyConn) error {
	for {
		f, err := load.ReadFrame(c.r)
		if err != nil {
			return err
		}
		switch f.Op {
		case load.OpText:
			h.answer(c, &f)
		case load.OpBinary:
			h.delivery(c, &f)
		case load.OpPing:
			if _, err := c.Write(load.MaskedFrame(load.OpPong, f.Head)); err != nil {
				return err
			}
		case load.OpClose:
			return load.ClosedBy(f.Head)
		}
	}
}

// answer counts the answer to a request.
func (h *healthy) answer(c *healthyConn, f *load.Frame) {
	now := control.Now()
	seq, due, ok := h.payload.Stamp(f)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ok || seq < c.next || seq >= uint64(len(c.phases)) {
		h.disordered++
		return
	}
	c.next = seq + 1
	phase := c.phases[seq]
	h.answered[phase]++
	h.rtt[phase].Record(now - due)
}

// delivery counts a message of the stream.
func (h *healthy) delivery(c *healthyConn, f *load.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq := binary.LittleEndian.Uint64(f.Head); seq < c.stream {
		h.disordered++
	} else {
		c.stream = seq + 1
		h.delivered++
	}
}

// missing is how many messages that were due have no answer yet.
func (h *healthy) missing() (n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for phase := range h.due {
		n += h.due[phase] - h.answered[phase]
	}
	return n
}

// finish stops sending, and waits for answers until all have arrived, or none
// arrives for a while. It returns the number of messages that were lost,
// with the messages of the stream; published is the number of publishes in it.
func (h *healthy) finish(ctx context.Context, published uint64) (lost uint64, err error) {
	h.over.Store(true)
	left := func() uint64 {
		n := h.missing()
		h.mu.Lock()
		defer h.mu.Unlock()
		return n + published*healthyClients - h.delivered
	}
	for progress, seen := time.Now(), left(); seen > 0 && time.Since(progress) < load.Patience; {
		if err := load.Wait(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
		if now := left(); now != seen {
			progress, seen = time.Now(), now
		}
	}
	return left(), nil
}

// dialer opens connections to a server.
type dialer struct {
	address string
	tls     bool
}

// dial connects and upgrades. Only that has a time limit.
func (d dialer) dial(ctx context.Context) (*healthyConn, error) {
	ctx, cancel := context.WithTimeout(ctx, healthyLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", d.address)
	if err != nil {
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // no port lingers
	if d.tls {
		conn = insecure(conn)
	}
	c := &healthyConn{Conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}
	if err := c.upgrade(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *healthyConn) upgrade(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if err := load.Upgrade(c, c.r); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// exchange sends a request and waits for its answer.
func (c *healthyConn) exchange(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	for {
		f, err := load.ReadFrame(c.r)
		switch {
		case err != nil:
			return err
		case f.Op == load.OpText:
			return nil
		case f.Op == load.OpClose:
			return load.ClosedBy(f.Head)
		}
	}
}
