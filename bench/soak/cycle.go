//go:build linux

package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/attack"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// The two halves of a run.
const (
	oneManager   = "one manager"
	manyManagers = "a manager each"
)

const (
	publishRate = 50              // publishes a second, over all rooms
	stallRate   = 20              // the same while members stall, to each of stallRooms
	stallRooms  = 2               // their stalled members lose messages
	stallBytes  = 16 << 10        // of a message to them
	lastCount   = 4               // publishes to each room right before a drain
	settlePart  = 0.05            // of a cycle, for clients that know the notice of a drain
	idleWorkers = 16              // goroutines that the loads may leave behind in the first cycles
	churnTime   = 5               // seconds in which each client of the crowd has one event
	restLimit   = 3 * time.Second // time for the server to come to rest
	// profileEvery is the number of cycles from one heap profile to the next.
	profileEvery = 10
)

// cycle is one cycle of a run and its results.
type cycle struct {
	*run
	index              int
	part, attack, path string

	crowd        *crowd
	storm, drain time.Duration
	rest         *control.Report // with the healthy clients alone
	p99          time.Duration   // of their requests
}

// all runs the cycle.
func (c *cycle) all(ctx context.Context) error {
	address := c.srv.Addr(c.path)
	clients, err := attack.NewClients(ctx, address)
	if err != nil {
		return err
	}
	for _, group := range c.chats {
		group.Begin()
	}
	if c.crowd, err = newCrowd(ctx, address, c.session.ClientLoops, c.conns, c.rooms); err != nil {
		return fmt.Errorf("the crowd: %w", err)
	}
	defer c.crowd.Stop()
	if err := c.loads(ctx, address); err != nil {
		return err
	}
	if err := c.pause(ctx, clients); err != nil {
		return err
	}
	if c.part == manyManagers {
		if err := c.drainAll(ctx); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
	}
	for _, group := range c.chats {
		if err := group.Resume(ctx); err != nil {
			return fmt.Errorf("healthy clients come back: %w", err)
		}
	}
	c.counts.refused += c.crowd.refused()
	c.crowd.Reset()
	return c.settle(ctx)
}

// share is a part of the time of a cycle.
func (c *cycle) share(part float64) time.Duration { return time.Duration(part * float64(c.cycle)) }

// loads runs the loads one after the other.
func (c *cycle) loads(ctx context.Context, address string) error {
	steady := control.Command{Name: "publish", Size: c.size, Rooms: c.rooms, Rate: publishRate}
	for _, part := range []func() error{
		func() error { return load.Wait(ctx, c.share(0.15)) },
		func() error {
			n, err := c.crowd.churn(ctx, float64(c.conns)/churnTime, c.share(0.2))
			c.counts.churned += n
			return err
		},
		func() (err error) {
			c.counts.refused += c.crowd.refused()
			c.storm, err = c.crowd.storm(ctx)
			c.counts.storms++
			return err
		},
		func() error {
			n, _, err := attack.Run(ctx, c.attack, address, c.share(0.3), c.run.share)
			c.counts.attackers += n
			return err
		},
	} {
		if err := c.beside(steady, part); err != nil {
			return err
		}
	}
	large := control.Command{
		Name: "publish", Size: stallBytes, Rooms: min(stallRooms, c.rooms), Rate: stallRate * stallRooms,
	}
	return c.crowd.stall(func() error {
		return c.beside(large, func() error { return load.Wait(ctx, c.share(0.2)) })
	})
}

// beside publishes while do runs.
func (c *cycle) beside(publish control.Command, do func() error) error {
	if _, err := c.call(publish); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	_, err := c.call(control.Command{Name: "stop"})
	return err
}

// pause ends the events of the healthy clients, and counts their losses.
func (c *cycle) pause(ctx context.Context, clients *attack.Clients) error {
	served, err := clients.Finish(ctx)
	if err != nil {
		return err
	}
	n := &c.counts
	c.p99 = served.RTT.Quantile(0.99)
	n.rtt.Add(served.RTT)
	n.requests, n.lost, n.disordered = n.requests+served.Answered, n.lost+served.Lost, n.disordered+served.Disordered
	if n.closed += served.Closed; served.Closed > 0 {
		n.reasons = append(n.reasons, fmt.Sprintf("cycle %d, %s: %s", c.index+1, c.attack, served.Reasons))
	}
	for _, group := range c.chats {
		missing, stuck, err := group.Pause(ctx)
		if err != nil {
			return err
		}
		n.missing, n.stuck = n.missing+missing, n.stuck+stuck
	}
	return c.reach(ctx)
}

// reach waits until the readers have all messages.
func (c *cycle) reach(ctx context.Context) error {
	r, err := c.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	return c.read.reach(ctx, c.counts.drains, int64(r.Kept))
}

// drainAll ends the manager, with messages under way, and waits until all clients
// know it. Another manager serves then.
func (c *cycle) drainAll(ctx context.Context) error {
	last, err := c.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	c.counts.dropped += last.Dropped - c.warmed
	c.warmed = 0
	c.counts.drains++
	began := time.Now()
	if _, err := c.call(control.Command{
		Name: "drain", Size: c.size, Rooms: c.rooms, Count: lastCount, Window: c.share(0.1), Settle: c.share(settlePart),
	}); err != nil {
		return err
	}
	c.drain = time.Since(began)
	for _, group := range c.chats {
		if err := group.Await(ctx, func() bool { return group.Ended() == group.Options.Conns }); err != nil {
			return err
		}
	}
	if err := c.crowd.Await(ctx, c.crowd.ended); err != nil {
		return err
	}
	if err := c.reach(ctx); err != nil {
		return err
	}
	c.read.restarted(int64(last.Kept) + lastCount)
	return nil
}

// settle waits until the server has only the healthy clients, and as many goroutines and
// descriptors as once before, or until it has had the time for it.
func (c *cycle) settle(ctx context.Context) error {
	clients := len(c.read)
	for _, group := range c.chats {
		clients += group.Options.Conns
	}
	most, descriptors := goroutines(c.base)+idleWorkers, c.base.Descriptors+idleWorkers
	for i := range c.cycles {
		most = min(most, goroutines(c.cycles[i].rest)+1)
		descriptors = min(descriptors, c.cycles[i].rest.Descriptors+1)
	}
	for began := time.Now(); ; {
		r, err := c.call(control.Command{Name: "workers"})
		if err != nil {
			return err
		}
		if r.Clients == clients && goroutines(r) <= most && r.Descriptors <= descriptors ||
			time.Since(began) > restLimit {
			if c.rest, err = c.call(control.Command{Name: "settle"}); err != nil {
				return err
			}
			return c.profile()
		}
		if err := load.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// profile writes the heap profile of each profileEvery-th cycle, if it is asked for. The
// garbage is collected before it.
func (c *cycle) profile() error {
	n := c.index + 1
	if c.memprofile == "" || n%profileEvery != 0 {
		return nil
	}
	_, err := c.call(control.Command{Name: "heap", File: fmt.Sprintf("%s.%d", c.memprofile, n)})
	return err
}
