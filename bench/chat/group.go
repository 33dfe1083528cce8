//go:build linux

package chat

import (
	"context"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// Options describe the clients of a group. Immutable.
type Options struct {
	Conns, Rooms, Size   int
	Rate                 float64 // messages a second of all
	Moving, Reconnecting float64 // percent of the clients a second
}

// Counts are the events of a group.
type Counts struct{ Sent, Moved, Reconnected uint64 }

// Group is the chatting clients of one load generator. Not safe for concurrent use.
type Group struct {
	Options
	*load.Generator // set when it exists
	work            []*traffic
}

// NewGroup returns a group for a generator of this number of loops, whose traffic is
// Traffic.
func NewGroup(o Options, loops int) *Group {
	g := &Group{Options: o}
	for i := range loops {
		g.work = append(g.work, newTraffic(&g.Options, i))
	}
	return g
}

// Traffic is the traffic of a loop.
func (g *Group) Traffic(i int) load.Traffic { return g.work[i] }

// Enter connects the clients and waits until each is in a room.
func (g *Group) Enter(ctx context.Context) error {
	if err := g.Connect(ctx, g.Options.Conns); err != nil {
		return err
	}
	g.Each(func(i int, l *load.Loop) {
		l.MayEnd = true
		for index := range l.Conns {
			g.work[i].enter(l, &l.Conns[index])
			l.Flush(int32(index))
		}
	})
	return g.Await(ctx, func() bool { return g.States(chatIn) == g.Options.Conns })
}

// Begin lets the clients speak, move and reconnect until Pause or End.
func (g *Group) Begin() {
	g.Each(func(i int, l *load.Loop) {
		if len(l.Conns) > 0 {
			g.work[i].begin(l, &g.Options, float64(len(l.Conns))/float64(g.Options.Conns))
		}
	})
}

// settle ends that, and waits until each client is in a room or in none. It returns
// the number of clients that are not: their connections have ended unasked, or they
// wait for an answer.
func (g *Group) settle(ctx context.Context) (stuck uint64, err error) {
	g.Each(func(i int, _ *load.Loop) { g.work[i].until = control.Now() })
	conns := uint64(g.Options.Conns)
	// Clients on the way into a room arrive there first.
	return g.Missing(ctx, func(load.Tally) (uint64, uint64) {
		return conns, uint64(g.States(chatIn) + g.States(chatAway))
	})
}

// Pause lets no client speak, move or reconnect until Begin, and waits until each has
// all messages of its room, or until no more arrive. It returns the number of missing
// messages, and of clients whose connections have ended unasked or that have no
// answer.
func (g *Group) Pause(ctx context.Context) (missing, stuck uint64, err error) {
	if stuck, err = g.settle(ctx); err != nil {
		return 0, 0, err
	}
	// When all have the first answer, the server has handled all that they said before
	// it. The second answer has the last number.
	for range 2 {
		g.inRooms(func(t *traffic, l *load.Loop, c *load.Conn) {
			c.State = chatAsking
			t.ask(l, c)
		})
		if _, err := g.Missing(ctx, func(load.Tally) (uint64, uint64) {
			waiting := g.Count(func(c *load.Conn) bool { return c.State == chatAsking || c.State == chatAwaiting })
			return uint64(g.Options.Conns), uint64(g.Options.Conns - waiting)
		}); err != nil {
			return 0, 0, err
		}
		missing += g.missing()
	}
	return missing, stuck, nil
}

// inRooms calls do for each client that is in a room, on its loop.
func (g *Group) inRooms(do func(t *traffic, l *load.Loop, c *load.Conn)) {
	g.Each(func(i int, l *load.Loop) {
		for index := range l.Conns {
			if c := &l.Conns[index]; c.Phase == load.PhaseOpen && c.State == chatIn {
				do(g.work[i], l, c)
				l.Flush(int32(index))
			}
		}
	})
}

// missing counts the messages and answers that clients lack, who go on without them.
func (g *Group) missing() (sum uint64) {
	missing := make([]uint64, len(g.Loops))
	g.Each(func(i int, l *load.Loop) {
		for index := range l.Conns {
			switch c := &l.Conns[index]; c.State {
			case chatAsking:
				missing[i]++ // the answer at least
				c.State = chatIn
			case chatAwaiting:
				missing[i] += c.Sent - c.Next
				c.State, c.Next = chatIn, c.Sent
			case chatEnding:
				missing[i] += c.Sent - c.Next
				c.State = chatAway
			}
		}
	})
	for _, n := range missing {
		sum += n
	}
	return sum
}

// End lets all clients leave, and waits until they have all messages that were
// published before, or until no more arrive. It returns the number of missing ones.
func (g *Group) End(ctx context.Context) (uint64, error) {
	if _, err := g.settle(ctx); err != nil {
		return 0, err
	}
	g.inRooms(func(t *traffic, l *load.Loop, c *load.Conn) { t.leave(l, c) })
	conns := uint64(g.Options.Conns)
	stuck, err := g.Missing(ctx, func(load.Tally) (uint64, uint64) { return conns, uint64(g.States(chatAway)) })
	if err != nil || stuck == 0 {
		return 0, err
	}
	missing := g.missing()
	away := g.States(chatAway)
	return missing + uint64(g.Options.Conns-away), nil // of the others an answer at least
}

// Counts returns the events so far.
func (g *Group) Counts() (sum Counts) {
	each := make([]Counts, len(g.work))
	g.Each(func(i int, _ *load.Loop) {
		each[i] = Counts{g.work[i].sent, g.work[i].moved, g.work[i].reconnected}
	})
	for _, c := range each {
		sum.Sent, sum.Moved, sum.Reconnected = sum.Sent+c.Sent, sum.Moved+c.Moved, sum.Reconnected+c.Reconnected
	}
	return sum
}
