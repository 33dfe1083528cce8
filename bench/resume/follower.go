//go:build linux

package resume

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// follower is the traffic of the clients of one loop. It checks that the offsets of each client
// rise by one.
type follower struct {
	epoch  string // of the room; from the answers to joins
	newest int64  // time of the newest message
	gaps   int    // notifications of gaps
}

// The messages of the server begin with these.
var (
	message  = []byte(`{"type":"notify","event":"` + control.HistoryEvent + `"`)
	gap      = []byte(`{"type":"notify","event":"ws.gap"`)
	response = []byte(`{"type":"response"`)

	offsetKey = []byte(`"offset":`)
	epochKey  = []byte(`"epoch":"`)
)

// Frame implements load.Traffic.
func (f *follower) Frame(l *load.Loop, c *load.Conn, frame *load.Frame, now int64) {
	switch b := frame.Head; {
	case bytes.HasPrefix(b, message):
		f.newest = now
		switch offset := load.Number(b, offsetKey); {
		case offset < c.Next:
			load.Count(&l.Disordered, 1)
		case offset > c.Next:
			load.Count(&l.Lost, offset-c.Next)
			fallthrough
		default:
			c.Next = offset + 1
		}
	case bytes.HasPrefix(b, response):
		_, rest, _ := bytes.Cut(b, epochKey)
		epoch, _, found := bytes.Cut(rest, []byte{'"'})
		if !found {
			load.Count(&l.Lost, 1)
			return
		}
		f.epoch = string(epoch)
		if c.Next == 0 { // a live join
			c.Next = load.Number(b, offsetKey) + 1
		}
	case bytes.HasPrefix(b, gap):
		f.gaps++
	}
}

// Done implements load.Traffic.
func (f *follower) Done(*load.Loop, *load.Conn, int64) {}

// joinFrame returns the masked request to join room 0, live without an epoch, else from its begin.
func joinFrame(epoch string) []byte {
	since := ""
	if epoch != "" {
		since = fmt.Sprintf(`,"since":{"epoch":%q,"offset":0}`, epoch)
	}
	return load.MaskedFrame(load.OpText, fmt.Appendf(nil,
		`{"type":"request","event":"ws.join","request_id":"1","data":{"room":"bench-0"%s}}`, since))
}

// joinAll makes the clients from first on join, from their offset next on.
func (c *crowd) joinAll(first int, epoch string, next uint64) {
	frame := joinFrame(epoch)
	c.g.Each(func(_ int, l *load.Loop) {
		for index := range l.Conns {
			if l.Number(index) < first {
				continue
			}
			l.Conns[index].Next = next
			l.Send(int32(index), frame)
		}
	})
}

// bystanders is the traffic of connections that send messages at a pace, and measure the time until
// each comes back. It counts from the time at which a message was due.
type bystanders struct {
	every int64 // nanoseconds between two messages of all of them
	next  int   // connection
	due   int64
}

// send sends the messages that are due.
func (b *bystanders) send(l *load.Loop, now int64) (next int64) {
	for ; b.due <= now; b.due += b.every {
		var payload [control.StampBytes]byte
		binary.LittleEndian.PutUint64(payload[8:], uint64(b.due))
		l.Send(int32(b.next%len(l.Conns)), load.MaskedFrame(load.OpBinary, payload[:]))
		b.next++
	}
	return b.due
}

// Frame implements load.Traffic.
func (b *bystanders) Frame(l *load.Loop, _ *load.Conn, f *load.Frame, now int64) {
	if l.Measures(f.Sent()) {
		l.RTT.Record(now - f.Sent())
	}
}

// Done implements load.Traffic.
func (b *bystanders) Done(*load.Loop, *load.Conn, int64) {}
