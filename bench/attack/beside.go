//go:build linux

package attack

import (
	"context"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/result"
)

// Parts of the command attack for other commands, whose server is in mode Attack or
// Soak.

// Known reports whether there is an attack of this name.
func Known(name string) bool { return attackNamed(name) != nil }

// Run attacks a server with a share of the clients and rates of an attack, from a
// process of its own. It returns the number of connections that were made, and how
// the server ended connections.
func Run(ctx context.Context, name, address string, d time.Duration, share float64) (
	connects uint64, ended string, err error,
) {
	a := attackNamed(name)
	if a == nil {
		return 0, "", fmt.Errorf("bench: no attack %q", name)
	}
	clients, share := a.scaled(share)
	t, err := launch(ctx, &target{Name: name, Address: address, Duration: d, Clients: clients, Share: share})
	return t.Connects, counted(t.Ended), err
}

// Clients are healthy clients beside other loads: they send requests at fixed times,
// and check that each is answered. Safe for concurrent use.
type Clients struct{ h *healthy }

// Served is the answers that Clients got.
type Served struct {
	Answered, Lost, Disordered uint64
	Closed                     int    // clients that the server closed, or whose connection failed
	Reasons                    string // for that
	RTT                        result.Histogram
}

// HealthyClients is the number of Clients.
const HealthyClients = healthyClients

// NewClients connects healthy clients, and lets them send until Finish.
func NewClients(ctx context.Context, address string) (*Clients, error) {
	h, err := newHealthy(ctx, dialer{address, false}, false)
	if err != nil {
		return nil, err
	}
	return &Clients{h}, nil
}

// Finish stops sending, waits for the answers, and closes the clients.
func (c *Clients) Finish(ctx context.Context) (Served, error) {
	defer c.h.stop()
	lost, err := c.h.finish(ctx, 0)
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	return Served{
		Answered: c.h.answered[phaseBefore], Lost: lost, Disordered: c.h.disordered,
		Closed: c.h.ended, Reasons: counted(c.h.reasons), RTT: c.h.rtt[phaseBefore],
	}, err
}
