//go:build linux

package soak

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// The states of a client of the crowd.
const (
	crowdOut = iota
	crowdIn  // has asked for its room
)

// stalledShare is the share of the crowd that stalls: one of that many.
const stalledShare = 10

// crowd is the clients beside the healthy ones: they share rooms with them, come and
// go, and stall. They check nothing.
type crowd struct {
	*load.Generator
	conns int
	work  []*churn
}

// newCrowd connects a crowd.
func newCrowd(ctx context.Context, address string, loops, conns, rooms int) (*crowd, error) {
	c := &crowd{conns: conns}
	for i := range loops {
		c.work = append(c.work, &churn{rooms: rooms, random: rand.New(rand.NewPCG(1, uint64(i)))})
	}
	var err error
	c.Generator, err = load.NewGenerator(address, loops, conns, false, func(i int) load.Traffic { return c.work[i] })
	if err != nil {
		return nil, err
	}
	c.ChooseStalled(func(n int) bool { return n%stalledShare == 0 })
	c.Each(func(_ int, l *load.Loop) { l.MayEnd = true })
	if err := c.enter(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// enter connects all clients and puts each into a room.
func (c *crowd) enter(ctx context.Context) error {
	c.Each(func(_ int, l *load.Loop) { l.Retry = true })
	if err := c.Connect(ctx, c.conns); err != nil {
		return err
	}
	c.Each(func(i int, l *load.Loop) {
		l.Retry, l.MayRefuse = false, true
		for index := range l.Conns {
			if conn := &l.Conns[index]; conn.Phase == load.PhaseOpen {
				c.work[i].join(l, conn)
				l.Flush(int32(index))
			}
		}
	})
	return nil
}

// ended reports whether no connection is left.
func (c *crowd) ended() bool {
	return c.Count(func(conn *load.Conn) bool { return conn.Phase != load.PhaseClosed }) == 0
}

// refused is the number of refused connections since the last storm.
func (c *crowd) refused() uint64 {
	_, _, _, refused := c.Opens()
	return refused
}

// storm ends all connections at once, and connects all clients again.
func (c *crowd) storm(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	c.Reset()
	err := c.enter(ctx)
	return time.Since(began), err
}

// churn lets clients leave and come at a rate for some time, and returns the number of
// events. Each client is connected at the end.
func (c *crowd) churn(ctx context.Context, rate float64, d time.Duration) (uint64, error) {
	c.Each(func(i int, l *load.Loop) {
		if len(l.Conns) > 0 {
			c.work[i].begin(l, rate*float64(len(l.Conns))/float64(c.conns), d)
		}
	})
	if err := load.Wait(ctx, d); err != nil {
		return 0, err
	}
	absent := func() (n int, events uint64) {
		counts := make([]int, len(c.work))
		all := make([]uint64, len(c.work))
		c.Each(func(i int, _ *load.Loop) {
			t := c.work[i]
			if counts[i], all[i] = len(t.absent), t.events; t.due < t.until {
				counts[i]++ // a late loop has events left: they must not come after a reset
			}
		})
		for i := range counts {
			n, events = n+counts[i], events+all[i]
		}
		return n, events
	}
	err := c.Await(ctx, func() bool { n, _ := absent(); return n == 0 })
	_, events := absent()
	return events, err
}

// stall lets some clients not read for some time, while do runs.
func (c *crowd) stall(do func() error) error {
	stalled := func(do func(l *load.Loop, index int)) {
		c.Each(func(_ int, l *load.Loop) {
			for index := range l.Conns {
				if phase := l.Conns[index].Phase; l.Stalls(index) && (phase == load.PhaseOpen || phase == load.PhaseStalled) {
					do(l, index)
				}
			}
		})
	}
	stalled(func(l *load.Loop, index int) { l.Stall(index) })
	err := do()
	stalled(func(l *load.Loop, index int) { l.Resume(index) })
	return err
}

// churn is the traffic of the crowd on one loop. Loop-confined.
type churn struct {
	rooms  int
	random *rand.Rand
	mean   float64 // nanoseconds between two events
	due    int64   // of the next event
	until  int64   // no event from then on
	absent []int32 // clients that are about to come back
	events uint64
}

func (t *churn) Frame(*load.Loop, *load.Conn, *load.Frame, int64) {}
func (t *churn) Done(*load.Loop, *load.Conn, int64)               {}

// join asks for a room.
func (t *churn) join(l *load.Loop, c *load.Conn) {
	c.Room, c.State = int32(t.random.IntN(t.rooms)), crowdIn
	l.Out = append(l.Out, roomFrame(control.JoinByte, c.Room)...)
}

func roomFrame(first byte, room int32) []byte {
	return load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32([]byte{first}, uint32(room)))
}

// begin starts the events of a loop, at a rate.
func (t *churn) begin(l *load.Loop, rate float64, d time.Duration) {
	t.mean = float64(time.Second) / rate
	now := control.Now()
	t.due, t.until, t.events = now, now+int64(d), 0
	l.Due, l.Tick = now, func(now int64) int64 { return t.tick(l, now) }
}

// tick runs the events that have come due.
func (t *churn) tick(l *load.Loop, now int64) int64 {
	t.comeBack(l)
	for ; t.due <= now && t.due < t.until; t.due += int64(t.random.ExpFloat64() * t.mean) {
		index := int32(t.random.IntN(len(l.Conns)))
		if c := &l.Conns[index]; c.Phase == load.PhaseOpen && c.State == crowdIn {
			t.event(l, index)
		}
	}
	next := int64(load.Never)
	if len(t.absent) > 0 {
		next = now + int64(2*time.Millisecond)
	}
	if t.due < t.until {
		next = min(next, t.due)
	}
	return next
}

// event lets a client change its room, or leave with a close handshake or without.
func (t *churn) event(l *load.Loop, index int32) {
	t.events++
	c := &l.Conns[index]
	switch t.random.IntN(3) {
	case 0:
		l.Out = append(l.Out, roomFrame(control.LeaveByte, c.Room)...)
		t.join(l, c)
	case 1:
		c.State, c.Closing = crowdOut, true
		l.Out = append(l.Out, load.MaskedFrame(load.OpClose, []byte{1000 >> 8, 1000 & 0xFF})...)
		t.absent = append(t.absent, index)
	default:
		l.Abort(index)
		t.absent = append(t.absent, index)
	}
	l.Flush(index)
}

// comeBack goes on with the clients that have left.
func (t *churn) comeBack(l *load.Loop) {
	absent := t.absent[:0]
	for _, index := range t.absent {
		switch c := &l.Conns[index]; {
		case c.Phase == load.PhaseClosed:
			l.Reopen(index)
		case c.Phase == load.PhaseOpen && !c.Closing:
			t.join(l, c)
			l.Flush(index)
			continue
		}
		absent = append(absent, index)
	}
	t.absent = absent
}
