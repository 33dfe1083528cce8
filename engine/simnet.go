package engine

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Simnet is a simulated network without sockets: the program feeds its
// connections, so a million of them need no descriptor. Everything above the
// sockets is the production code: handshake, decoder, shards, inboxes, queues,
// timers. A connection costs 16 bytes here, and no kernel memory.
//
// The peers are clients that read at once: they answer pings and close frames
// and close when the engine does. Received frames are counted. A stalled peer
// does not read: its socket is full.
//
// Time passes only in Advance.
//
// A Simnet serves one engine, once, and all methods wait until that engine
// runs. Peers are numbered from 0 in the order of Connect. Safe for concurrent
// use.
type Simnet struct {
	// OnFrame, if set before the engine runs, is called with each frame that a
	// peer receives, borrowed, on its event loop. It must not block.
	OnFrame func(peer int, frame []byte)

	// Immutable once started is closed.
	eng     *Engine
	loops   []*simLoop
	addr    *net.TCPAddr // of all peers
	began   time.Time
	started chan struct{}

	// Atomic.
	passed  atomic.Int64 // nanoseconds
	pending atomic.Int64 // events that no loop has finished

	running sync.WaitGroup // loops

	mu      sync.Mutex
	idle    sync.Cond // on mu; pending has become 0
	peers   int       // guarded by mu
	claimed bool      // an engine uses it; guarded by mu
}

// SimnetStats counts from the start.
type SimnetStats struct {
	Upgraded, Refused              uint64 // answers to upgrade requests
	Messages, Pings, Pongs, Closes uint64 // frames that peers have received
	Bytes                          uint64 // the same in bytes, with the answers
	Writes, Full                   uint64 // write and writev calls; those that found a stalled peer
}

// NewSimnet returns a network without peers.
func NewSimnet() *Simnet {
	m := &Simnet{
		addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, began: time.Now(), started: make(chan struct{}),
	}
	m.idle.L = &m.mu
	return m
}

var errSimnetUsed = errors.New("ws: a Simnet is for one engine")

// runSimnet runs the loops on a Simnet.
func (e *Engine) runSimnet() error {
	m := e.cfg.Simnet
	m.mu.Lock()
	claimed := m.claimed
	m.claimed = true
	m.mu.Unlock()
	if claimed {
		e.closeOnce()
		return errSimnetUsed
	}
	m.eng = e
	var bound sync.WaitGroup
	for i, s := range e.shards {
		l := &simLoop{net: m, shard: s, index: i, unread: make(map[int32]*plaintext)}
		l.more.L = &l.mu
		s.driver = l
		m.loops = append(m.loops, l)
		bound.Add(1)
		m.running.Go(func() { l.run(&bound) }) // owned by this call: stop ends it and waits
	}
	m.running.Go(func() { e.watch.run(e.closing) }) // owned by this call as well
	bound.Wait()
	close(e.started)
	close(m.started)
	<-e.closing
	m.stop()
	return nil
}

// stop ends the loops, which close the open connections.
func (m *Simnet) stop() {
	for _, l := range m.loops {
		l.mu.Lock()
		l.closed = true
		l.more.Signal()
		l.mu.Unlock()
	}
	m.running.Wait()
	m.done(m.pending.Load())
}

// Now returns the time of the engine's clock.
func (m *Simnet) Now() time.Time { return m.began.Add(time.Duration(m.passed.Load())) }

// Advance moves the time by d at once. To fire timers in order, advance in
// small steps and Wait after each.
func (m *Simnet) Advance(d time.Duration) {
	<-m.started
	m.passed.Add(int64(d))
	m.mu.Lock()
	defer m.mu.Unlock() // ticks come one after the other
	m.eng.tick()
}

// Wait returns when the loops have nothing left to do, or have ended. It does
// not wait for later posts of workers.
func (m *Simnet) Wait() {
	<-m.started
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.pending.Load() > 0 {
		m.idle.Wait()
	}
}

// done counts n events that loops have finished.
func (m *Simnet) done(n int64) {
	if m.pending.Add(-n) == 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.idle.Broadcast()
	}
}

// acceptBatch is the number of connections that a loop accepts before it looks
// at other events.
const acceptBatch = 64

// Connect adds n peers, spread over the loops. Each sends request, borrowed until
// Wait. It returns the number of the first peer.
func (m *Simnet) Connect(n int, request []byte) (first int) {
	<-m.started
	m.mu.Lock()
	defer m.mu.Unlock() // so that numbers and events have one order
	first = m.peers
	m.peers += n
	for _, l := range m.loops {
		for more := l.peersBelow(m.peers) - l.peersBelow(first); more > 0; more -= acceptBatch {
			l.push(simEvent{kind: simConnect, n: int32(min(more, acceptBatch)), data: request})
		}
	}
	return first
}

// Send makes the peer send b, borrowed until Wait, in one piece: masked frames,
// or a part of an upgrade request. The bytes are lost on a connection that has
// ended.
func (m *Simnet) Send(peer int, b []byte) { m.tell(peer, simArrive, b) }

// HangUp makes the peer end its connection without a close frame.
func (m *Simnet) HangUp(peer int) { m.tell(peer, simHangUp, nil) }

// Stall makes the peer's socket full, until Resume.
func (m *Simnet) Stall(peer int) { m.tell(peer, simStall, nil) }

// Resume makes the peer read again.
func (m *Simnet) Resume(peer int) { m.tell(peer, simResume, nil) }

func (m *Simnet) tell(peer int, kind simEventKind, b []byte) {
	<-m.started
	m.loops[peer%len(m.loops)].push(simEvent{kind: kind, n: int32(peer / len(m.loops)), data: b})
}

// Stats returns a snapshot.
func (m *Simnet) Stats() (st SimnetStats) {
	<-m.started
	for _, l := range m.loops {
		st.Upgraded += l.stats.upgraded.Load()
		st.Refused += l.stats.refused.Load()
		st.Messages += l.stats.messages.Load()
		st.Pings += l.stats.pings.Load()
		st.Pongs += l.stats.pongs.Load()
		st.Closes += l.stats.closes.Load()
		st.Bytes += l.stats.bytes.Load()
		st.Writes += l.stats.writes.Load()
		st.Full += l.stats.full.Load()
	}
	return st
}
