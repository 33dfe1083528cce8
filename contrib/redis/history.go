package redisbroker

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws"
)

// HistoryBroker is a Broker that also stores the histories of rooms, in streams of Redis. Safe for
// concurrent use.
type HistoryBroker struct {
	*Broker
}

var _ ws.HistoryBroker = (*HistoryBroker)(nil)

// NewHistoryBroker returns a HistoryBroker for one Manager. It connects when the Manager runs.
func NewHistoryBroker(cfg Config) (*HistoryBroker, error) {
	b, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &HistoryBroker{b}, nil
}

// Bounds of the scripts, which hold up all other commands of the server.
const (
	pageMessages  = 1000    // of one answer to Read
	pageBytes     = 1 << 20 // of one answer to Read, beside its last ten messages
	roomsOfScript = 250     // of one script of Heads
	maxScripts    = 512     // under way in a session
)

// The scripts. Each is run as a whole, so an answer is of one moment.
var (
	//go:embed history_common.lua
	commonLua string
	//go:embed history_append.lua
	appendLua string
	//go:embed history_read.lua
	readLua string
	//go:embed history_heads.lua
	headsLua string

	appendScript = rueidis.NewLuaScript(commonLua + appendLua)
	readScript   = rueidis.NewLuaScript(commonLua + readLua)
	headsScript  = rueidis.NewLuaScript(commonLua + headsLua)
)

// Append stores a message, and publishes it to the nodes.
func (b *HistoryBroker) Append(
	ctx context.Context, room string, msg []byte, keep ws.History,
) (ws.Position, error) {
	keys, channel := b.channels.history(room)
	publish := "PUBLISH"
	if b.cfg.Sharded {
		publish = "SPUBLISH"
	}
	reply, err := b.script(ctx, "append", appendScript, keys, []string{
		publish, channel, string(msg), newBase(), strconv.Itoa(max(1, keep.Size)),
		strconv.FormatInt(keep.Bytes, 10), strconv.FormatInt(milliseconds(keep.TTL), 10),
	})
	if err != nil {
		return ws.Position{}, err
	}
	return reply.position()
}

// Read returns stored messages of the room.
func (b *HistoryBroker) Read(
	ctx context.Context, room string, after uint64, limit int,
) (ws.HistoryPage, error) {
	keys, _ := b.channels.history(room)
	reply, err := b.script(ctx, "read", readScript, keys, []string{
		newBase(), strconv.FormatUint(after, 10),
		strconv.Itoa(max(1, min(limit, pageMessages))), strconv.Itoa(pageBytes),
	})
	if err != nil {
		return ws.HistoryPage{}, err
	}
	return reply.page()
}

// Heads returns the position of the newest message of each room. It also keeps the evidence of the
// position in Redis, for rooms that have been silent for long.
func (b *HistoryBroker) Heads(ctx context.Context, rooms []string) ([]ws.Position, error) {
	positions := make([]ws.Position, len(rooms))
	var failed error
	var mu sync.Mutex // of failed
	var running sync.WaitGroup
	for _, part := range b.channels.metas(rooms, roomsOfScript) {
		running.Go(func() { // Heads waits for it
			if err := b.heads(ctx, part, positions); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	running.Wait()
	if failed != nil {
		return nil, failed
	}
	return positions, nil
}

// heads sets the positions of the rooms of a part.
func (b *HistoryBroker) heads(ctx context.Context, part metas, positions []ws.Position) error {
	reply, err := b.script(ctx, "heads", headsScript, part.keys, nil)
	for _, place := range part.places {
		if err == nil {
			positions[place], err = reply.position()
		}
	}
	return err
}

// Forget removes the history of the room. The next one has another epoch.
func (b *HistoryBroker) Forget(ctx context.Context, room string) error {
	keys, _ := b.channels.history(room)
	_, err := b.do(ctx, "forget", func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Del().Key(keys...).Build())
	})
	return err
}

// script runs a script.
func (b *HistoryBroker) script(
	ctx context.Context, name string, script *rueidis.Lua, keys, args []string,
) (*scriptReply, error) {
	result, err := b.do(ctx, name, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, keys, args)
	})
	if err != nil {
		return nil, err
	}
	values, err := result.ToArray()
	return &scriptReply{values}, err
}

// do runs a command in the present session. An error of the connection ends the session, and so does
// the error of a server that is a replica now.
func (b *HistoryBroker) do(
	ctx context.Context, name string, command func(context.Context, rueidis.Client) rueidis.RedisResult,
) (result rueidis.RedisResult, err error) {
	s := b.active.Load()
	if s == nil {
		return result, ErrDown
	}
	select {
	case s.scripts <- struct{}{}:
		defer func() { <-s.scripts }()
	case <-s.ctx.Done():
		return result, ErrDown
	case <-ctx.Done():
		return result, ctx.Err()
	}
	limited, cancel := withoutDeadline(ctx, b.cfg.Timeout)
	defer cancel()
	result = command(limited, s.client)
	err = result.Error()
	server, ofServer := rueidis.IsRedisErr(err)
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		return result, ctx.Err()
	case !ofServer:
		_ = s.fail(err)
		return result, fmt.Errorf("%w: %w", ErrDown, err)
	case strings.HasPrefix(server.Error(), "READONLY"):
		_ = s.fail(ErrReplica)
		return result, ErrDown
	}
	return result, fmt.Errorf("redisbroker: %s: %w", name, err)
}

// withoutDeadline returns a context that ends with ctx or after the time. It has no deadline, because rueidis
// runs a command with a deadline without regard to the end of its context, and then ends the
// connection.
func withoutDeadline(ctx context.Context, limit time.Duration) (context.Context, func()) {
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	timer := time.AfterFunc(limit, cancel)
	return limited, func() {
		stop()
		timer.Stop()
		cancel()
	}
}

// newBase returns the text with which the epochs of a room begin, if it has none.
func newBase() string { return rand.Text()[:8] }

// milliseconds rounds a limit up; -1 is no limit.
func milliseconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return max(1, (d + time.Millisecond - 1).Milliseconds())
}

// errReply says that the answer of a script has another form.
var errReply = errors.New("redisbroker: malformed answer of a script")

// scriptReply is the rest of the answer of a script.
type scriptReply struct {
	values []rueidis.RedisMessage
}

// next returns the next value, borrowed from the answer.
func (r *scriptReply) next() ([]byte, error) {
	if len(r.values) == 0 {
		return nil, errReply
	}
	value, err := r.values[0].AsBytes()
	r.values = r.values[1:]
	return value, err
}

// number returns the next value, a number.
func (r *scriptReply) number() (uint64, error) {
	value, err := r.next()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(value), 10, 64)
}

// position returns the next two values.
func (r *scriptReply) position() (p ws.Position, err error) {
	epoch, err := r.next()
	if err != nil {
		return ws.Position{}, err
	}
	p.Epoch = string(epoch)
	p.Offset, err = r.number()
	return p, err
}

// page returns all values as the answer of Read.
func (r *scriptReply) page() (page ws.HistoryPage, err error) {
	head, err := r.position()
	if err != nil {
		return page, err
	}
	page = ws.HistoryPage{Epoch: head.Epoch, Base: head.Offset, Top: head.Offset}
	page.Messages = make([]ws.StoredMessage, 0, len(r.values)/3)
	for len(r.values) > 0 {
		msg, err := r.message()
		if err != nil {
			return page, err
		}
		page.Messages = append(page.Messages, msg)
	}
	if len(page.Messages) > 0 {
		page.Base = page.Messages[0].Prev
	}
	return page, nil
}

// message returns the next three values.
func (r *scriptReply) message() (msg ws.StoredMessage, err error) {
	age, err := r.number()
	if err != nil {
		return msg, err
	}
	if msg.Offset, err = r.number(); err != nil {
		return msg, err
	}
	msg.Age, msg.Prev = time.Duration(age)*time.Millisecond, msg.Offset-1
	msg.Data, err = r.next()
	return msg, err
}

// receiveStored hands a message of a history, which is borrowed, to the node: the epoch, the offset and
// the data, with a space between them.
func (s *session) receiveStored(room string, msg []byte) {
	epoch, rest, _ := bytes.Cut(msg, []byte(" "))
	number, data, _ := bytes.Cut(rest, []byte(" "))
	offset, err := strconv.ParseUint(string(number), 10, 53)
	if err != nil || offset == 0 {
		return // a message of somebody else
	}
	s.broker.node.ReceiveStored(room, string(epoch), ws.StoredMessage{
		Offset: offset, Prev: offset - 1, Data: data,
	})
}
