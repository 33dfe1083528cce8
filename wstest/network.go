package wstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/qi-realtime/ws"
)

// Network is a simulated network for one Manager. Its clients need no sockets, and time
// passes in Advance only, so that a test of heartbeats, timeouts and TTLs does not wait for
// them. The clients answer pings and close frames by themselves. Safe for concurrent use.
type Network struct {
	// Path is the path of upgrade requests, "/ws" by default.
	Path string

	t   testing.TB
	net *ws.Simnet

	dialing sync.Mutex // held by dial

	mu    sync.Mutex
	peers map[int]*peer // guarded by mu
}

// NewNetwork returns a network without clients.
func NewNetwork(t testing.TB) *Network {
	n := &Network{Path: "/ws", t: t, net: ws.NewSimnet(), peers: make(map[int]*peer)}
	n.net.OnFrame = func(i int, frame []byte) { n.peer(i).receive(frame) }
	return n
}

// Option makes the network the one of a new Manager.
func (n *Network) Option() ws.Option { return func(c *ws.Config) { c.Simnet = n.net } }

// Start runs m, which must have been made with Option. At the end of the test, m is shut
// down. The test fails if m does not run or does not shut down.
func (n *Network) Start(m *ws.Manager) *Server {
	n.t.Helper()
	run(n.t, m)
	return &Server{Manager: m, t: n.t, network: n}
}

// timerStep is the longest step of Advance, so that timers fire in their order.
const timerStep = time.Second / 4

// Advance moves the time by d, and returns when the event loops have acted on it. Handlers on
// workers may go on.
func (n *Network) Advance(d time.Duration) {
	for ; d > 0; d -= timerStep {
		n.net.Advance(min(d, timerStep))
		n.net.Wait()
	}
}

// dial connects a client. The error does not say why a client is refused.
func (n *Network) dial(header http.Header) (*Client, error) {
	request := bytes.NewBufferString("GET " + n.Path + " HTTP/1.1\r\nHost: localhost\r\n" +
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Sec-WebSocket-Version: 13\r\n")
	_ = header.Write(request) // to memory
	request.WriteString("\r\n")
	n.dialing.Lock()
	defer n.dialing.Unlock()
	before := n.net.Stats()
	i := n.net.Connect(1, request.Bytes())
	poll := time.NewTicker(time.Millisecond) // a worker may decide on the request
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		switch after := n.net.Stats(); {
		case after.Upgraded > before.Upgraded:
			p := n.peer(i)
			n.t.Cleanup(func() { _ = p.Close() })
			return newClient(n.t, p, nil), nil
		case after.Refused > before.Refused:
			return nil, errRefused
		case time.Now().After(deadline):
			return nil, fmt.Errorf("wstest: no answer to the upgrade request: %w", os.ErrDeadlineExceeded)
		}
	}
}

var errRefused = errors.New("wstest: the upgrade request is refused")

func (n *Network) peer(i int) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[i]
	if p == nil {
		p = &peer{net: n.net, number: i, arrived: make(chan struct{}, 1)}
		n.peers[i] = p
	}
	return p
}

// peer is the client's end of a simulated connection. Its reads are not safe for concurrent
// use.
type peer struct {
	net      *ws.Simnet
	number   int
	deadline time.Time
	arrived  chan struct{} // has an element if received may have grown

	mu       sync.Mutex
	received bytes.Buffer // guarded by mu
}

func (p *peer) receive(frame []byte) {
	p.mu.Lock()
	p.received.Write(frame)
	p.mu.Unlock()
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// Read waits until a frame arrives, or for the deadline.
func (p *peer) Read(b []byte) (int, error) {
	timeout := time.NewTimer(time.Until(p.deadline))
	defer timeout.Stop()
	for {
		p.mu.Lock()
		n, err := p.received.Read(b)
		p.mu.Unlock()
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		select {
		case <-p.arrived:
		case <-timeout.C:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write sends a copy of b.
func (p *peer) Write(b []byte) (int, error) {
	p.net.Send(p.number, bytes.Clone(b))
	return len(b), nil
}

// Close ends the connection without a close frame.
func (p *peer) Close() error {
	p.net.HangUp(p.number)
	return nil
}

func (p *peer) SetReadDeadline(t time.Time) error {
	p.deadline = t
	return nil
}
