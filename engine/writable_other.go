//go:build !linux

package engine

import (
	"sync"
	"time"
)

// pollBlocked is the interval between two tries of blocked connections where
// there is no epoll.
const pollBlocked = 5 * time.Millisecond

// writablePoller is the portable fallback, for development: it makes every
// blocked connection of a loop try again on a timer.
//
// Loop-confined: use only on the event loop that owns the connection.
type writablePoller struct {
	end, ended chan struct{}
	running    bool // since the loop's first blocked connection; loop-confined

	mu    sync.Mutex
	conns map[*Conn]struct{} // guarded by mu
}

func newWritablePoller() (*writablePoller, error) {
	return &writablePoller{end: make(chan struct{}), ended: make(chan struct{}), conns: make(map[*Conn]struct{})}, nil
}

func (p *writablePoller) arm(c *Conn) error {
	if !p.running {
		p.running = true
		go p.run() // owned by the engine: close ends it and waits
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return nil
}

func (p *writablePoller) disarm(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *writablePoller) run() {
	defer close(p.ended)
	ticker := time.NewTicker(pollBlocked)
	defer ticker.Stop()
	for {
		select {
		case <-p.end:
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		conns := p.conns
		p.conns = make(map[*Conn]struct{})
		p.mu.Unlock()
		for c := range conns {
			c.shard.postUrgent((*writableTask)(c))
		}
	}
}

func (p *writablePoller) close() {
	if p.running {
		close(p.end)
		<-p.ended
	}
}
