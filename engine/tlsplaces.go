package engine

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/qi-realtime/ws/pool"
)

const (
	// handshakesUnderWay is how many handshakes may be under way for each that may
	// compute: most of them wait for their peers, which takes memory alone.
	handshakesUnderWay = 16
	// graceShare is the part of the handshake timeout for which a peer may be
	// waited for, in all, while others need its place: 1 s by default.
	graceShare = 10
)

// handshakes runs TLS handshakes, each on a goroutine of its own, in the order in
// which they are submitted. Of those under way Config.TLSHandshakes compute at
// once, and the others wait for their peers. Safe for concurrent use.
type handshakes struct {
	// Immutable.
	eng       *Engine
	workers   *pool.Workers // one worker for each handshake under way
	most      int           // handshakes under way
	computing chan struct{} // has an element for each handshake that computes

	mu       sync.Mutex
	unended  int       // handshakes under way and waiting for a worker; guarded by mu
	yielding int       // those that were closed for others, and have not ended; guarded by mu
	owing    list.List // of *tlsHandshake under way whose peers were waited for, in the order in which that began; guarded by mu
}

func newHandshakes(e *Engine) *handshakes {
	report := func(r any) { e.reportPanic("TLS handshake", r) }
	most := handshakesUnderWay * e.cfg.TLSHandshakes
	return &handshakes{
		eng: e, most: most, workers: pool.NewWorkers(most, report), computing: make(chan struct{}, e.cfg.TLSHandshakes),
	}
}

// handshakePlace is the state of a handshake that handshakes keeps, guarded by its mu.
type handshakePlace struct {
	submitted bool // and not ended
	started   bool
	yields    bool          // closed for others
	waits     bool          // for the peer
	owedFrom  time.Duration // when the peer was waited for at first
	since     time.Duration // when it was at last
	owed      time.Duration // how long it was before that
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

// start reports whether h is still to be run. It is called on the worker, where
// every handshake ends with end.
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

// abandon forgets h, whose connection has ended, unless it is under way: until it
// ends it holds its worker.
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

// rest lets another handshake compute, in the place of h.
func (p *handshakes) rest(h *tlsHandshake) {
	if h.computes {
		h.computes = false
		<-p.computing
	}
}

// waitBegins notes that h waits for its peer.
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

// waitEnds notes that h does not wait for its peer any more.
func (p *handshakes) waitEnds(h *tlsHandshake) {
	now := p.eng.elapsed()
	p.mu.Lock()
	defer p.mu.Unlock()
	h.place.owed += now - h.place.since
	h.place.waits = false
}

// relieve gives the workers of handshakes whose peers were waited for for long to
// those that wait for a worker: to as many, the longest under way first. What the
// peers have sent meanwhile does not matter, or one byte now and then could hold a
// worker for the whole handshake timeout. It is called for each new handshake and
// at every tick.
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
			break // so have the others
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

// total returns how long the peer was waited for.
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

// close waits for the workers, whose connections have ended.
func (p *handshakes) close() {
	_ = p.workers.Close(context.Background()) // an error would be the context's
}
