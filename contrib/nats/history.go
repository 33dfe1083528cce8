package natsbroker

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/qi-realtime/ws"
)

// HistoryConfig holds the settings of the streams that store histories. The zero value is valid. A
// stream that exists is used as it is; all but Streams are for new ones.
type HistoryConfig struct {
	// Streams is the number of streams, over which the rooms are spread by their names. All nodes need
	// the same one. Default is 16.
	Streams int
	// Replicas is the number of servers that store each stream: 1, 3 or 5. Default is 1.
	Replicas int
	// Memory keeps the streams in the memory of the servers, in place of their files.
	Memory bool
	// RoomMessages is the greatest number of messages of a room. Append refuses a room whose
	// ws.History.Size is larger. Default is 1,000.
	RoomMessages int
	// MaxAge is the time after which a message is removed. It has to be longer than the TTL of each
	// room, because a room whose messages have all been removed reads a gap with its next one. Negative is
	// no limit. Default is 24 h.
	MaxAge time.Duration
}

// complete sets the defaults, and returns an error for an invalid setting.
func (c *HistoryConfig) complete() error {
	defaultTo(&c.Streams, 16)
	defaultTo(&c.Replicas, 1)
	defaultTo(&c.RoomMessages, 1000)
	defaultTo(&c.MaxAge, 24*time.Hour)
	c.MaxAge = max(0, c.MaxAge)
	switch {
	case c.Streams < 1 || c.Replicas < 1 || c.RoomMessages < 1:
		return fmt.Errorf("natsbroker: a setting of the history is negative: %+v", *c)
	case c.Streams > maxStreams:
		return fmt.Errorf("natsbroker: more than %d streams", maxStreams)
	case c.MaxAge > 0 && c.MaxAge < 100*time.Millisecond:
		return fmt.Errorf("natsbroker: MaxAge is less than 100 ms: %v", c.MaxAge)
	}
	return nil
}

const (
	maxStreams = 1024
	// storedHeader bounds the header of a stored message, which counts as a part of it.
	storedHeader = 64
)

// HistoryBroker is a Broker that stores the histories of rooms in JetStream. Safe for concurrent use.
type HistoryBroker struct{ *Broker }

var _ ws.HistoryBroker = (*HistoryBroker)(nil)

// NewWithHistory returns a HistoryBroker for one Manager. It connects when the Manager runs, and
// makes the streams that do not exist when they are needed.
func NewWithHistory(cfg Config, history HistoryConfig) (*HistoryBroker, error) {
	if err := history.complete(); err != nil {
		return nil, err
	}
	b, err := New(cfg)
	if err != nil {
		return nil, err
	}
	b.store = newStore(b, history)
	return &HistoryBroker{b}, nil
}

// Append stores msg as the newest message of the room. It tries again while the stream has no leader,
// for up to 15 s; the server stores the message once. It returns an error that wraps
// ws.ErrBrokerUnavailable at once while there is no connection, and one that matches
// nats.ErrMaxPayload for a message that is larger than the server takes.
func (h *HistoryBroker) Append(ctx context.Context, room string, msg []byte, keep ws.History) (ws.Position, error) {
	s := h.store.streamOf(room)
	m := &nats.Msg{
		Subject: s.subject(room),
		Header:  nats.Header{nats.MsgIdHdr: {h.store.messageID()}},
		Data:    msg,
	}
	var seq uint64
	err := s.try(ctx, "append", func(ctx context.Context, st *state) (err error) {
		if err := st.keeps(keep); err != nil {
			return err
		}
		seq, err = s.append(ctx, m)
		return err
	})
	if err != nil {
		return ws.Position{}, err
	}
	return ws.Position{Epoch: s.state.Load().Epoch, Offset: seq}, nil
}

// Read returns messages of the room, up to 1 MiB.
func (h *HistoryBroker) Read(ctx context.Context, room string, after uint64, limit int) (ws.HistoryPage, error) {
	s := h.store.streamOf(room)
	limit = max(1, min(limit, math.MaxInt32))
	var page ws.HistoryPage
	err := s.try(ctx, "read", func(ctx context.Context, _ *state) (err error) {
		page, err = s.read(ctx, room, after, limit)
		return err
	})
	return page, err
}

// Forget removes the messages of the room.
func (h *HistoryBroker) Forget(ctx context.Context, room string) error {
	s := h.store.streamOf(room)
	return s.try(ctx, "forget", func(ctx context.Context, _ *state) error {
		return s.purge(ctx, map[string]any{"filter": s.subject(room)})
	})
}
