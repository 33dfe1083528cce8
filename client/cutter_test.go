package client_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// site is an address whose server may change. Safe for concurrent use.
type site struct {
	mu   sync.Mutex
	addr string
}

func newSite(addr string) *site { return &site{addr: addr} }

func (s *site) move(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
}

func (s *site) target() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// dial is a dialer for clients.
func (s *site) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, s.target())
}

// fault is the way in which a cutter harms a connection.
type fault int

const (
	none   fault = iota
	closes       // both sides, with a FIN
	resets       // both sides, with a RST
	halves       // the rest of a chunk is lost, then both sides close
	mutes        // one direction is lost for a while, then both sides close
	delays       // a chunk waits for a while
)

// cutter is a TCP proxy with faults. Safe for concurrent use.
type cutter struct {
	*site
	t testing.TB
	l net.Listener

	pumps sync.WaitGroup
	mu    sync.Mutex
	// Guarded by mu.
	random *rand.Rand
	rate   float64       // of the faults, for each chunk
	lag    time.Duration // the longest delay of each chunk; it is another one for each connection
	conns  map[net.Conn]bool
	faults int
	closed bool
}

// newCutter returns a proxy to addr, without faults at first.
func newCutter(t testing.TB, addr string, seed uint64) *cutter {
	t.Helper()
	c := &cutter{
		site: newSite(addr), t: t, l: harness.Listen(t, "tcp", "127.0.0.1:0"),
		random: rand.New(rand.NewPCG(seed, 1)), conns: make(map[net.Conn]bool),
	}
	c.pumps.Go(c.accept)
	t.Cleanup(c.stop)
	return c
}

func (c *cutter) addr() string { return c.l.Addr().String() }

func (c *cutter) setRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

// setLag delays the chunks of new connections.
func (c *cutter) setLag(lag time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag = lag
}

// drawLag returns the delay of one direction of a connection.
func (c *cutter) drawLag() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.random.Int64N(int64(c.lag) + 1))
}

// cutAll ends all connections.
func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}

// count returns the number of connections that faults have ended.
func (c *cutter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults
}

func (c *cutter) stop() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.l.Close()
	c.cutAll()
	c.pumps.Wait()
}

func (c *cutter) accept() {
	for {
		near, err := c.l.Accept()
		if err != nil {
			return
		}
		c.pumps.Go(func() { c.forward(near) })
	}
}

// forward connects near with the target until one side ends.
func (c *cutter) forward(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.target())
	if err != nil {
		return
	}
	defer far.Close()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.conns[near], c.conns[far] = true, true
	c.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { c.pump(near, far) })
	pumps.Go(func() { c.pump(far, near) })
	pumps.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, near)
	delete(c.conns, far)
}

// pump copies from one side to the other, and harms some chunks.
func (c *cutter) pump(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 2048)
	for lag := c.drawLag(); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if lag > 0 {
			<-time.After(lag)
		}
		kind, wait := c.draw()
		switch kind {
		case closes:
			return
		case resets:
			for _, conn := range []net.Conn{from, to} {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			return
		case halves:
			_, _ = to.Write(buf[:n/2])
			return
		case mutes:
			<-time.After(wait)
			return
		case delays:
			<-time.After(wait)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// draw chooses the fault of a chunk and its time.
func (c *cutter) draw() (fault, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.random.Float64() >= c.rate {
		return none, 0
	}
	kind := closes + fault(c.random.IntN(int(delays)))
	if kind != delays {
		c.faults++
	}
	return kind, time.Duration(c.random.IntN(20)) * time.Millisecond
}

// answerHandshake accepts an opening handshake.
func answerHandshake(conn net.Conn) {
	if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
		_, _ = conn.Write(codec.AppendAccept(nil, r, codec.Accept{}))
	}
}
