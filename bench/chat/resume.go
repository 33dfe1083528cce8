//go:build linux

package chat

import (
	"context"

	"github.com/qi-realtime/ws/bench/load"
)

// position is the place of a client whose connection has ended.
type position struct {
	index, room int32
	next        uint64 // message of the room
}

// Ended counts the clients whose connections have ended.
func (g *Group) Ended() int {
	return g.Count(func(c *load.Conn) bool { return c.Phase == load.PhaseClosed })
}

// Resume connects the clients whose connections have ended, and lets each enter the
// room again that it was in. The group is paused, and nobody else speaks: a room's
// next message must be the one that the client expects, else messages that were
// published before the end are lost, and count.
func (g *Group) Resume(ctx context.Context) error {
	away := make([][]position, len(g.Loops))
	g.Each(func(i int, l *load.Loop) {
		for index := range l.Conns {
			if c := &l.Conns[index]; c.Phase == load.PhaseClosed {
				if c.State == chatIn {
					away[i] = append(away[i], position{int32(index), c.Room, c.Next})
				}
				l.Reopen(int32(index))
			}
		}
	})
	open := func(c *load.Conn) bool { return c.Phase == load.PhaseOpen }
	if err := g.Await(ctx, func() bool { return g.Count(open) == g.Options.Conns }); err != nil {
		return err
	}
	g.Each(func(i int, l *load.Loop) {
		for _, p := range away[i] {
			c := &l.Conns[p.index]
			c.Room, c.Next, c.State = p.room, p.next, chatResuming
			g.work[i].ask(l, c)
			l.Flush(p.index)
		}
	})
	return g.Await(ctx, func() bool { return g.States(chatResuming) == 0 })
}
