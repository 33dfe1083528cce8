//go:build linux

package workload

import (
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/server"
)

// Publisher publishes to rooms while a load runs. Not safe for concurrent use.
type Publisher interface {
	// Begin starts a load, and returns the server's report at its start.
	Begin(c control.Command) (*control.Report, error)
	// End ends the load. published counts its messages.
	End() (r *control.Report, published uint64, err error)
}

// NewPublisher returns the publisher of the server itself, or with byClient one that is
// connection 0 of the generator, which must be no member.
func NewPublisher(srv *server.Process, g *load.Generator, byClient bool) Publisher {
	if byClient {
		return &clientPublisher{srv: srv, g: g}
	}
	return &serverPublisher{srv: srv}
}

// serverPublisher is the server's own goroutine. Not safe for concurrent use.
type serverPublisher struct {
	srv    *server.Process
	before uint64 // published by earlier loads
}

// Begin implements Publisher.
func (p *serverPublisher) Begin(c control.Command) (*control.Report, error) {
	began, err := p.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	p.before = began.Published
	_, err = p.srv.Call(c)
	return began, err
}

// End implements Publisher.
func (p *serverPublisher) End() (*control.Report, uint64, error) {
	r, err := p.srv.Call(control.Command{Name: "stop"})
	if err != nil {
		return nil, 0, err
	}
	return r, r.Published - p.before, nil
}

// clientPublisher sends messages that the server publishes from the handler of the
// connection: when they are due, or one whenever all members have received one. Not safe for
// concurrent use, except answer.
type clientPublisher struct {
	srv  *server.Process
	g    *load.Generator
	load atomic.Pointer[publishes] // that runs, or nil
	last *publishes                // that has begun last
}

// publishes are the messages of one load. Safe for concurrent use.
type publishes struct {
	message *load.PublishPayload
	rooms   uint64
	rate    float64
	start   int64
	sent    atomic.Uint64
}

// Begin implements Publisher.
func (p *clientPublisher) Begin(c control.Command) (*control.Report, error) {
	began, err := p.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, err
	}
	w := &publishes{
		message: load.NewPublishPayload(c.Size), rooms: uint64(max(1, c.Rooms)), rate: c.Rate, start: control.Now(),
	}
	p.last = w
	p.load.Store(w)
	p.inLoop(func(l *load.Loop) {
		if w.rate > 0 {
			l.Due, l.Tick = w.start, func(now int64) int64 { return w.tick(l, now) }
			return
		}
		for range c.Outstanding {
			l.Out = w.append(l.Out, control.Now())
		}
		l.Flush(0)
	})
	return began, nil
}

// End implements Publisher.
func (p *clientPublisher) End() (*control.Report, uint64, error) {
	p.load.Store(nil)
	p.inLoop(func(l *load.Loop) { l.Due, l.Tick = load.Never, nil })
	r, err := p.srv.Call(control.Command{Name: "report"})
	return r, p.last.sent.Load(), err
}

// inLoop runs f on the loop of connection 0, when the other loops have done all that
// they had begun.
func (p *clientPublisher) inLoop(f func(l *load.Loop)) {
	p.g.Each(func(i int, l *load.Loop) {
		if i == 0 {
			f(l)
		}
	})
}

// answer appends the message that follows one which was due at a time, and which all
// members have now. Safe for concurrent use.
func (p *clientPublisher) answer(dst []byte, due int64) []byte {
	w := p.load.Load()
	if w == nil || due < w.start {
		return dst // it is of an earlier load
	}
	return w.append(dst, control.Now())
}

// append appends the next message, to the room whose turn it is.
func (w *publishes) append(dst []byte, due int64) []byte {
	turn := (w.sent.Add(1) - 1) % w.rooms
	return w.message.Append(dst, int32(turn), due)
}

// due is when the next message is due.
func (w *publishes) due() int64 {
	return w.start + int64(float64(w.sent.Load())/w.rate*float64(time.Second))
}

// tick sends the messages that have come due, as far as the socket takes them.
func (w *publishes) tick(l *load.Loop, now int64) int64 {
	due := w.due()
	for ; due <= now && len(l.Pending[0])+len(l.Out) < maxUnsent; due = w.due() {
		l.Out = w.append(l.Out, due)
		if l.Measures(due) {
			l.Late.Record(now - due)
		}
	}
	l.Flush(0)
	if due <= now {
		return now + int64(time.Millisecond) // the socket is full
	}
	return due
}
