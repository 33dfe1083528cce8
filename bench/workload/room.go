//go:build linux

package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/server"
)

// room is a running server whose rooms every connection but one has joined, each
// one of them.
type room struct {
	srv       *server.Process
	g         *load.Generator
	publisher Publisher
	stop      func()
	stalled   int    // members that do not read
	trickling int    // members that read a few bytes now and then
	reading   []int  // the other members, of each room
	rss       uint64 // of the server before any of them stalled

	published uint64 // by earlier loads
}

// roomSetup is how the members of rooms are.
type roomSetup struct {
	conns       int // members
	rooms       int
	size        int     // of a message, in bytes
	ack         bool    // they acknowledge
	placed      bool    // those of a room share an event loop
	byClient    bool    // connection 0 publishes, not the server itself
	outstanding int     // publishes that not all members have received
	stalled     float64 // percent that never read
	trickling   float64 // percent that read a few bytes now and then
	firstUser   uint64  // if not 0, they show tokens
	others      int     // members that the server has put into other rooms
}

// openRoom starts a server and fills its rooms. Members that are to stall have
// when it returns.
func openRoom(ctx context.Context, s *command.Session, setup roomSetup) (*room, error) {
	srv, err := s.Launch(ctx, setup.conns+1, control.Config{Placed: setup.placed})
	if err != nil {
		return nil, err
	}
	r, err := joinRooms(ctx, s, srv, setup)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	r.stop = func() { r.g.Stop(); srv.Stop() }
	return r, nil
}

// joinRooms is openRoom on a server that runs, and goes on when the generator is
// stopped.
func joinRooms(ctx context.Context, s *command.Session, srv *server.Process, setup roomSetup) (*room, error) {
	comp := NewCompletions(setup.rooms, setup.outstanding, setup.ack)
	work := make([]*Members, s.ClientLoops)
	g, err := load.NewGenerator(srv.Addr(s.Path), s.ClientLoops, setup.conns+1, false, func(i int) load.Traffic {
		work[i] = NewMembers(comp)
		return work[i]
	})
	if err != nil {
		return nil, err
	}
	if setup.firstUser > 0 {
		g.Authenticate(setup.firstUser)
	}
	comp.Control(g.Loops[0])
	publisher := NewPublisher(srv, g, setup.byClient)
	comp.publisher, _ = publisher.(*clientPublisher)
	// Connection 0 is the control connection. The slow ones are spread evenly
	// over the others.
	stalled := evenly(setup.conns, setup.stalled+setup.trickling)
	stalls := func(n int) bool { return n > 0 && stalled[n-1] }
	r := &room{
		srv: srv, g: g, publisher: publisher, stop: g.Stop, reading: make([]int, setup.rooms),
		trickling: int(float64(setup.conns) * setup.trickling / 100),
	}
	rooms := spread(setup.conns, setup.rooms)
	for n := 1; n <= setup.conns; n++ {
		if stalls(n) {
			r.stalled++
			continue
		}
		r.reading[rooms[n-1]]++
		work[n%s.ClientLoops].Add(rooms[n-1])
	}
	g.ChooseStalled(stalls)
	if setup.placed {
		g.Place(rooms)
	}
	if err := r.enter(ctx, setup, rooms); err != nil {
		g.Stop()
		return nil, err
	}
	return r, nil
}

// evenly marks percent percent of n.
func evenly(n int, percent float64) []bool {
	marks := make([]bool, n)
	for i := range marks {
		marks[i] = int(float64(i+1)*percent/100) > int(float64(i)*percent/100)
	}
	return marks
}

// spread deals n members out to rooms of equal size, at random, so that a room's
// members are on all event loops of the server; the same every time.
func spread(n, rooms int) []int32 {
	of := make([]int32, n)
	for i := range of {
		of[i] = int32(i % rooms)
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(n, func(i, j int) { of[i], of[j] = of[j], of[i] })
	return of
}

// enter makes the members connect and join their rooms, and the stalled ones
// stall.
func (r *room) enter(ctx context.Context, setup roomSetup, rooms []int32) error {
	if i := slices.Index(r.reading, 0); i >= 0 {
		return fmt.Errorf("room %d has no member that reads: fewer rooms or stalled members are needed", i)
	}
	if err := r.g.Connect(ctx, setup.conns+1); err != nil {
		return err
	}
	r.g.Each(func(_ int, l *load.Loop) {
		for index := range l.Conns {
			if n := l.Number(index); n > 0 {
				l.Conns[index].Room = rooms[n-1]
			}
		}
	})
	if err := joinRoom(ctx, r.g, r.srv, setup.conns+setup.others, -1); err != nil {
		return err
	}
	before, err := r.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	if r.rss = before.RSS; r.stalled == 0 {
		return nil
	}
	r.g.Stall()
	if err := r.fillStalled(ctx, setup.size); err != nil {
		return err
	}
	r.g.Trickle(r.trickling)
	r.stalled -= r.trickling
	return nil
}

// fillStalled publishes until each stalled member's socket and queue are full:
// until exactly these members have something queued, and drop each message.
func (r *room) fillStalled(ctx context.Context, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// Small enough for the socket buffers of the members that read.
	fill := control.Command{Name: "fill", Size: size, Rooms: len(r.reading), Count: max(1, min(16, (64<<10)/size))}
	for dropped := r.srv.Dropped; ; {
		before := r.g.Sum()
		rep, err := r.srv.Call(fill)
		if err != nil {
			return err
		}
		missing, _, err := r.deliver(ctx, before, rep.Published)
		if err != nil {
			return err
		}
		if missing > 0 {
			return fmt.Errorf("%d deliveries did not come while others stalled", missing)
		}
		if rep.Dropped-dropped == uint64(fill.Count*r.stalled) {
			if stuck, err := stalled(ctx, r.srv, r.stalled); err != nil || stuck {
				return err
			}
		}
		dropped = rep.Dropped
	}
}

// joinRoom makes the connections join their rooms, and waits until the server has
// members members. Connection 0 stays out if joined is negative; else joined
// connections have joined before.
func joinRoom(ctx context.Context, g *load.Generator, srv *server.Process, members, joined int) error {
	g.Each(func(i int, l *load.Loop) {
		first := g.Share(i, max(joined, 0))
		if joined < 0 && i == 0 {
			first = 1
		}
		for index := first; index < len(l.Conns); index++ {
			room := uint32(l.Conns[index].Room)
			l.Send(int32(index), load.MaskedFrame(load.OpBinary,
				binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, room)))
		}
	})
	for {
		r, err := srv.Call(control.Command{Name: "report"})
		if err != nil || r.Members == members {
			return err
		}
		if err := g.Err(); err != nil {
			return err
		}
		if err := load.Wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// outcome is the result of one load on the room.
type outcome struct {
	*load.Window
	missing, disordered, dropped uint64

	rssGrowth int64 // of the server, since before any member stalled
}

// publish runs one load on the room, measures it, and waits until all that was
// published is delivered to the members that read.
func (r *room) publish(ctx context.Context, o *load.Timing, c control.Command) (*outcome, error) {
	before := r.g.Sum()
	began, err := r.publisher.Begin(c)
	if err != nil {
		return nil, err
	}
	w, err := r.g.Measure(ctx, r.srv, o)
	if err != nil {
		return nil, err
	}
	ended, published, err := r.publisher.End()
	if err != nil {
		return nil, err
	}
	out := &outcome{Window: w, dropped: ended.Dropped - began.Dropped, rssGrowth: int64(ended.RSS) - int64(r.rss)}
	out.missing, out.disordered, err = r.deliver(ctx, before, r.published+published)
	out.Collect(r.g)
	return out, err
}

// deliver waits until the members that read have everything up to published, or
// until nothing more comes. before is from the time when they had all of the
// earlier loads.
func (r *room) deliver(ctx context.Context, before load.Tally, published uint64) (
	missing, disordered uint64, err error,
) {
	n := published - r.published
	r.published = published
	want, rooms := uint64(0), uint64(len(r.reading))
	for i, reading := range r.reading { // the publisher took them in turn
		of := n / rooms
		if uint64(i) < n%rooms {
			of++
		}
		want += of * uint64(reading)
	}
	missing, err = r.g.Missing(ctx, func(t load.Tally) (uint64, uint64) {
		disordered = t.Disordered - before.Disordered
		return want, t.Messages - before.Messages - disordered
	})
	return missing, disordered, err
}
