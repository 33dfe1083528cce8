package engine

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/qi-realtime/ws/pool"
)

const (
	// handshakesUnderWay is the number of handshakes in progress for each one
	// that may compute. Most of them wait for their peers, which takes memory
	// only.
	handshakesUnderWay = 16
	// graceShare is the part of the handshake timeout that a handshake may wait
	// for its peer, in all, while others need its place: 1 s by default.
	graceShare = 10
)

// handshakes runs TLS handshakes, each on its own goroutine, in the order of
// submit. Config.TLSHandshakes of them compute at once; the others in progress
// wait for their peers. Safe for concurrent use.
type handshakes struct {
	// Immutable.
	eng       *Engine
	workers   *pool.Workers // one for each handshake in progress
	most      int           // bound of handshakes in progress
	computing chan struct{} // has an element for each handshake that computes

	mu       sync.Mutex
	unended  int // handshakes in progress and waiting for a worker; guarded by mu
	yielding int // those that were closed for others and have not ended; guarded by mu
	// owing lists the *tlsHandshake in progress that have waited for their peers,
	// in the order of their first waits; guarded by mu.
	owing list.List
}

func newHandshakes(e *Engine) *handshakes {
	report := func(r any) { e.reportPanic("TLS handshake", r) }
	most := handshakesUnderWay * e.cfg.TLSHandshakes
	return &handshakes{
		eng: e, most: most, workers: pool.NewWorkers(most, report), computing: make(chan struct{}, e.cfg.TLSHandshakes),
	}
}

// handshakePlace is the state of a handshake in handshakes, guarded by its mu.
type handshakePlace struct {
	submitted bool // and not ended
	started   bool
	yields    bool          // closed for others
	waits     bool          // for the peer
	owedFrom  time.Duration // start of the first wait
	since     time.Duration // start of the last wait
	owed      time.Duration // sum of the waits before the last one
	element   *list.Element // in handshakes.owing, or nil
}

// submit queues h for a worker. It returns false once the engine has ended.
func (p *handshakes) submit(h *tlsHandshake) (ok bool) {
	p.mu.Lock()
	h.place.submitted = true
	p.unended++
	p.mu.Unlock()
	p.relieve()
	h.ticket, ok = p.workers.SubmitTicket(h)
	return ok
}

// start reports whether h is still to run. The worker calls it, and each
// handshake ends with end.
func (p *handshakes) start(h *tlsHandshake) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.place.started = true
	return h.place.submitted
}

func (p *handshakes) end(h *tlsHandshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(h)
}

// abandon forgets h, whose connection has ended. A handshake that has started
// keeps its worker until it ends.
func (p *handshakes) abandon(h *tlsHandshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !h.place.started {
		p.forgetLocked(h)
		p.workers.Withdraw(h.ticket)
	}
}

func (p *handshakes) forgetLocked(h *tlsHandshake) {
	if !h.place.submitted {
		return
	}
	h.place.submitted = false
	p.unended--
	if h.place.yields {
		p.yielding--
	}
	p.disownLocked(h)
}

// compute waits until h may compute. It returns false if h was closed meanwhile.
func (p *handshakes) compute(h *tlsHandshake) bool {
	select {
	case p.computing <- struct{}{}:
		h.computes = true
		return true
	case <-h.ctx.Done():
		return false
	}
}

// rest lets another handshake compute in place of h.
func (p *handshakes) rest(h *tlsHandshake) {
	if h.computes {
		h.computes = false
		<-p.computing
	}
}

// waitBegins records that h waits for its peer.
func (p *handshakes) waitBegins(h *tlsHandshake) {
	now := p.eng.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &h.place
	w.waits, w.since = true, now
	if w.element == nil && w.owed == 0 && !w.yields {
		w.owedFrom = now
		w.element = p.owing.PushBack(h)
	}
}

// waitEnds records that h does not wait for its peer any more.
func (p *handshakes) waitEnds(h *tlsHandshake) {
	now := p.eng.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	h.place.owed += now - h.place.since
	h.place.waits = false
}

// relieve frees workers for the handshakes that wait for one: for each it
// closes a handshake that has waited too long for its peer, the oldest first.
// Bytes that the peer has sent meanwhile do not matter; otherwise a peer could
// hold a worker for the whole handshake timeout with a byte now and then.
// relieve runs for each new handshake and at every tick.
func (p *handshakes) relieve() {
	for _, h := range p.chooseYielding() {
		h.close()
	}
}

func (p *handshakes) chooseYielding() (chosen []*tlsHandshake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.unended - p.most - p.yielding
	if n <= 0 {
		return nil
	}
	now, grace := p.eng.elapsed(), p.eng.cfg.HandshakeTimeout/graceShare
	for e := p.owing.Front(); e != nil && len(chosen) < n; {
		h := e.Value.(*tlsHandshake)
		e = e.Next()
		if now-h.place.owedFrom < grace {
			break // the others began later
		}
		if h.place.total(now) < grace {
			continue // the application's callbacks took the time
		}
		p.disownLocked(h)
		h.place.yields = true
		p.yielding++
		chosen = append(chosen, h)
	}
	return chosen
}

// total returns the sum of the waits for the peer.
func (w *handshakePlace) total(now time.Duration) time.Duration {
	if w.waits {
		return w.owed + now - w.since
	}
	return w.owed
}

func (p *handshakes) disownLocked(h *tlsHandshake) {
	if h.place.element != nil {
		p.owing.Remove(h.place.element)
		h.place.element = nil
	}
}

// close waits for the workers. All connections have ended.
func (p *handshakes) close() {
	_ = p.workers.Close(context.Background()) // the context never ends
}
