package client

import (
	"time"

	"github.com/qi-realtime/ws/codec"
)

// ackInterval is the least time between two acknowledgements of a room.
const ackInterval = 50 * time.Millisecond

// Device names this device in a join of an inbox: the server keeps an acknowledged offset for each
// device of a user. The default is the device "".
func Device(name string) JoinOption { return func(d *joinData) { d.Device = name } }

// AutoAck acknowledges each message of an inbox when its callbacks have returned, and each gap.
func AutoAck() JoinOption { return func(d *joinData) { d.autoAck = true } }

// acks is the state of the acknowledgements in one epoch. Guarded by Client.mu.
type acks struct {
	offset int64       // acknowledged by the application
	sent   int64       // sent on the present connection
	timer  *time.Timer // until the next one may be sent, or nil
}

// Ack acknowledges the messages of an inbox up to an offset: the server does not send them to this
// device again when it joins without a position. The messages are acknowledged together every 50 ms at
// most, and again after a reconnect. Ack has no effect if the client is not in the room, and for
// an offset beyond the last message.
func (r *Room) Ack(offset int64) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if st := r.c.rooms[r.name]; st != nil {
		st.ackLocked(offset)
	}
}

func (r *roomState) ackLocked(offset int64) {
	if !r.wanted || offset <= r.acks.offset || offset > r.cursor.Offset {
		return
	}
	r.acks.offset = offset
	if r.acks.timer == nil {
		r.sendAckLocked()
	}
}

// sendAckLocked sends the acknowledgement that is due. Without a connection it waits for the next join.
func (r *roomState) sendAckLocked() {
	if r.source == nil || r.acks.offset <= r.acks.sent {
		return
	}
	text, err := encode(outgoing{Type: typeNotify, Event: eventAck}, struct {
		Room   string `json:"room"`
		Offset int64  `json:"offset"`
	}{r.name, r.acks.offset})
	if err != nil || !r.source.sendLocked(codec.OpText, text) {
		return
	}
	r.acks.sent = r.acks.offset
	var t *time.Timer
	t = time.AfterFunc(ackInterval, func() {
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		if r.acks.timer == t {
			r.acks.timer = nil
			r.sendAckLocked()
		}
	})
	r.acks.timer = t
}

// repeatAckLocked sends the last acknowledgement on a new connection, because it may be lost.
func (r *roomState) repeatAckLocked() {
	r.acks.sent = 0
	if r.acks.timer == nil {
		r.sendAckLocked()
	}
}

// endAcksLocked sends the acknowledgement that waits, and forgets all.
func (r *roomState) endAcksLocked() {
	r.sendAckLocked()
	if r.acks.timer != nil {
		r.acks.timer.Stop()
	}
	r.acks = acks{}
}

// autoAckLocked acknowledges the position after the callbacks that wait.
func (r *roomState) autoAckLocked() {
	if !r.options.autoAck || !r.wanted {
		return
	}
	term, position := r.term, r.cursor.Position
	r.c.callLocked(func() {
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		if r.term == term && r.cursor.Epoch == position.Epoch {
			r.ackLocked(position.Offset)
		}
	})
}
