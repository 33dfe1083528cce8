package ws

import (
	"time"

	"github.com/qi-realtime/ws/engine"
)

// Simnet is a simulated network that takes the place of sockets in Config.Simnet: the
// program feeds its connections, so a million of them need no descriptor. A connection
// costs 16 bytes of the Simnet, and no kernel memory. Everything above the sockets is the
// code that runs in production.
//
// The peers are clients that read at once: they answer pings and close frames, and close
// when the server does. A stalled peer does not read: its socket is full.
//
// Time passes only in Advance.
//
// A Simnet serves one Manager, and all methods wait until that runs. Peers are numbered
// from 0 in the order of Connect. Safe for concurrent use.
type Simnet struct {
	// OnFrame, if set before NewManager, is called with each frame that a peer receives,
	// borrowed, on its event loop. It must not block.
	OnFrame func(peer int, frame []byte)

	net *engine.Simnet
}

// NewSimnet returns a network without peers.
func NewSimnet() *Simnet { return &Simnet{net: engine.NewSimnet()} }

// engine returns the network as the engine takes it; nil for a nil n.
func (n *Simnet) engine() *engine.Simnet {
	if n == nil {
		return nil
	}
	n.net.OnFrame = n.OnFrame
	return n.net
}

// clock returns the clock of the network; time.Now for a nil n.
func (n *Simnet) clock() func() time.Time {
	if n == nil {
		return time.Now
	}
	return n.net.Now
}

// Advance moves the time by d at once. To fire timers in order, advance in
// small steps and Wait after each.
func (n *Simnet) Advance(d time.Duration) { n.net.Advance(d) }

// Wait returns when the loops have nothing left to do, or have ended. It does
// not wait for later posts of workers.
func (n *Simnet) Wait() { n.net.Wait() }

// Connect adds count peers, spread over the loops. Each sends request, borrowed until
// Wait. It returns the number of the first peer.
func (n *Simnet) Connect(count int, request []byte) (first int) { return n.net.Connect(count, request) }

// Send makes the peer send b, borrowed until Wait, in one piece: masked frames,
// or a part of an upgrade request. The bytes are lost on a connection that has
// ended.
func (n *Simnet) Send(peer int, b []byte) { n.net.Send(peer, b) }

// HangUp makes the peer end its connection without a close frame.
func (n *Simnet) HangUp(peer int) { n.net.HangUp(peer) }

// Stall makes the peer's socket full, until Resume.
func (n *Simnet) Stall(peer int) { n.net.Stall(peer) }

// Resume makes the peer read again.
func (n *Simnet) Resume(peer int) { n.net.Resume(peer) }

// SimnetStats counts from the start.
type SimnetStats struct {
	Upgraded, Refused              uint64 // answers to upgrade requests
	Messages, Pings, Pongs, Closes uint64 // frames that peers have received
	Bytes                          uint64 // the same in bytes, with the answers
	Writes, Full                   uint64 // write and writev calls; those that found a stalled peer
}

// Stats returns the counts of all peers.
func (n *Simnet) Stats() SimnetStats { return SimnetStats(n.net.Stats()) }
