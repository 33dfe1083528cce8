package natsbroker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/qi-realtime/ws"
)

// stream is one of the streams that store the messages of rooms. The offset of a message is its sequence
// in the stream. Safe for concurrent use.
//
// A stream has an epoch: the name in a message of the stream, which is there first. No message with
// an epoch is a stream that is new, or has lost its messages. Each epoch begins at a sequence that
// follows from the time, so that no two messages of a stream ever have the same sequence, and a
// message of another epoch never looks like the successor of one of this epoch.
type stream struct {
	// Immutable.
	store *store
	shard string
	name  string

	state atomic.Pointer[state] // nil before the first answer of the server
	known atomic.Bool           // the stream is there, with the epoch of state
	lost  atomic.Bool           // the stream has lost messages, so the epoch has to end
	seen  atomic.Uint64         // the greatest sequence that this node has seen

	mu     sync.Mutex
	flight *flight // of a call of open that is under way, or nil; guarded by mu
}

// state is a stream as the server described it. Immutable.
type state struct {
	epoch
	roomMessages int64         // -1: no limit
	maxAge       time.Duration // 0: no limit
}

// epoch is the content of the message with the epoch.
type epoch struct {
	Epoch string `json:"epoch"`
	Start uint64 `json:"start"` // no sequence of the epoch is below it
}

// flight is a call of open for all that wait for it.
type flight struct {
	done  chan struct{}
	state *state
	err   error
}

func newStream(s *store, number int) *stream {
	name := strings.ReplaceAll(s.broker.cfg.Prefix, ".", "+")
	shard := strconv.Itoa(number)
	return &stream{store: s, shard: shard, name: name + "-h" + shard}
}

// streamOf returns the stream of a room.
func (s *store) streamOf(room string) *stream { return s.streams[shardOf(room, len(s.streams))] }

// subject returns the subject under which messages of the room are stored.
func (s *stream) subject(room string) string {
	return s.store.broker.cfg.Prefix + ".h." + s.shard + "." + token(room)
}

// live returns the subject on which the server publishes messages of the room that it has stored.
func (s *stream) live(room string) string {
	return s.store.broker.cfg.Prefix + ".l." + s.shard + "." + token(room)
}

// epochSubject returns the subject of the message with the epoch.
func (s *stream) epochSubject() string { return s.store.broker.cfg.Prefix + ".e." + s.shard }

// saw notes that the stream has had a message with the sequence.
func (s *stream) saw(seq uint64) {
	for {
		seen := s.seen.Load()
		if seq <= seen || s.seen.CompareAndSwap(seen, seq) {
			return
		}
	}
}

// learn makes e the epoch, unless it is an older one, and returns the state.
func (s *stream) learn(e epoch) *state {
	for {
		old := s.state.Load()
		if old == nil || e.Start <= old.Start {
			return old
		}
		next := *old
		next.epoch = e
		if s.state.CompareAndSwap(old, &next) {
			s.warn(e)
			return &next
		}
	}
}

// warn logs the begin of an epoch after another one.
func (s *stream) warn(e epoch) {
	log := s.store.broker.node.Logger()
	log.Warn("natsbroker: the histories of a stream begin again", "stream", s.name, "epoch", e.Epoch)
}

// keeps returns an error if the stream holds less than keep.
func (st *state) keeps(keep ws.History) error {
	if st.roomMessages > 0 && int64(keep.Size) > st.roomMessages {
		return fmt.Errorf("%w: History.Size is %d, where the stream keeps %d messages of a room",
			ws.ErrInvalidConfig, keep.Size, st.roomMessages)
	}
	if st.maxAge > 0 && (keep.TTL < 0 || keep.TTL > st.maxAge) {
		return fmt.Errorf("%w: History.TTL is %v, where the stream keeps messages for %v",
			ws.ErrInvalidConfig, keep.TTL, st.maxAge)
	}
	return nil
}

// ready returns the state of a stream that is there, and makes the stream if it is not.
func (s *stream) ready(ctx context.Context) (*state, error) {
	if s.known.Load() {
		return s.state.Load(), nil
	}
	s.mu.Lock()
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, opening)
		defer cancel()
		f.state, f.err = s.open(ctx)
		s.mu.Lock()
		s.flight = nil
		s.mu.Unlock()
		close(f.done)
		return f.state, f.err
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.state, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// open finds or makes the stream and its epoch. The leader of the stream answers all its requests.
func (s *stream) open(ctx context.Context) (*state, error) {
	seen := s.seen.Load()
	info, err := s.info(ctx)
	if isCode(err, jetstream.JSErrCodeStreamNotFound) {
		info, err = s.create(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := s.check(&info.Config); err != nil {
		return nil, err
	}
	e, err := s.readEpoch(ctx)
	switch {
	case err != nil:
	case s.lost.Load():
		err = errNoEpoch
	case info.State.LastSeq < seen:
		err = s.confirmLoss(ctx, seen)
	}
	if errors.Is(err, errNoEpoch) {
		e, err = s.beginEpoch(ctx, info)
	}
	if err != nil {
		return nil, err
	}
	st := &state{e, info.Config.MaxMsgsPerSubject, info.Config.MaxAge}
	if old := s.state.Swap(st); old != nil && old.Epoch != e.Epoch {
		s.warn(e)
	}
	s.lost.Store(false)
	s.known.Store(true)
	return st, nil
}

// info returns the configuration and the state of the stream.
func (s *stream) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	var info jetstream.StreamInfo
	err := s.store.call(ctx, "STREAM.INFO."+s.name, struct{}{}, &info)
	return &info, err
}

// create makes the stream, or returns one that another node has made at the same time.
func (s *stream) create(ctx context.Context) (*jetstream.StreamInfo, error) {
	cfg := s.config()
	var info jetstream.StreamInfo
	err := s.store.call(ctx, "STREAM.CREATE."+s.name, cfg, &info)
	if isCode(err, jetstream.JSErrCodeStreamNameInUse) {
		return s.info(ctx)
	}
	if err == nil {
		log := s.store.broker.node.Logger()
		log.Info("natsbroker: a stream was created", "stream", s.name, "replicas", cfg.Replicas, "storage", cfg.Storage)
	}
	return &info, err
}

// config returns the configuration of a new stream.
func (s *stream) config() *jetstream.StreamConfig {
	c := &s.store.cfg
	prefix := s.store.broker.cfg.Prefix
	cfg := &jetstream.StreamConfig{
		Name:              s.name,
		Description:       "histories of rooms",
		Subjects:          []string{s.subjects(), s.epochSubject()},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxMsgsPerSubject: int64(c.RoomMessages),
		MaxAge:            c.MaxAge,
		Storage:           jetstream.FileStorage,
		Replicas:          c.Replicas,
		Duplicates:        dedupe,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		FirstSeq:          s.start(),
		RePublish:         &jetstream.RePublish{Source: s.subjects(), Destination: prefix + ".l." + s.shard + ".>"},
	}
	if c.Memory {
		cfg.Storage = jetstream.MemoryStorage
	}
	if c.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, c.MaxAge)
	}
	return cfg
}

// subjects returns the subjects of all messages of rooms.
func (s *stream) subjects() string { return s.store.broker.cfg.Prefix + ".h." + s.shard + ".>" }

// check returns an error if a stream with that configuration does not work.
func (s *stream) check(cfg *jetstream.StreamConfig) error {
	want := s.config()
	switch {
	case !cfg.AllowDirect || !cfg.AllowMsgTTL:
		return fmt.Errorf("the stream %s needs allow_direct and allow_msg_ttl, and NATS 2.11 or later", s.name)
	case cfg.RePublish == nil || *cfg.RePublish != *want.RePublish:
		return fmt.Errorf("the stream %s has to republish %s to %s",
			s.name, want.RePublish.Source, want.RePublish.Destination)
	}
	return nil
}

// Sequences begin at the number of milliseconds since firstDay, with room for 64 messages in each: no
// epoch reaches the start of the next one. They stay below 1<<53 for 4,000 years.
var firstDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// start returns the first sequence of an epoch that begins now.
func (s *stream) start() uint64 {
	return max(uint64(time.Since(firstDay).Milliseconds())<<6, s.seen.Load()+1)
}

// readEpoch returns the epoch in the stream, or errNoEpoch.
func (s *stream) readEpoch(ctx context.Context) (e epoch, err error) {
	var found struct {
		Message struct {
			Data []byte `json:"data"`
		} `json:"message"`
	}
	err = s.store.call(ctx, "STREAM.MSG.GET."+s.name, map[string]string{"last_by_subj": s.epochSubject()}, &found)
	if isCode(err, jetstream.JSErrCodeMessageNotFound) {
		return e, errNoEpoch
	}
	if err == nil {
		err = json.Unmarshal(found.Message.Data, &e)
	}
	return e, err
}

// confirmLoss returns errNoEpoch if the stream has certainly lost its newest messages, as a server
// does that fails before they are on its disk: others would get their sequences.
func (s *stream) confirmLoss(ctx context.Context, seen uint64) error {
	select {
	case <-time.After(200 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	info, err := s.info(ctx)
	if err == nil && info.State.LastSeq < seen {
		return errNoEpoch
	}
	return err
}

// fresh is the age at which a stream without an epoch may be one that another node has made, and is
// about to give an epoch.
const fresh = 10 * time.Second

// beginEpoch begins an epoch, or returns one that another node has begun at the same time.
func (s *stream) beginEpoch(ctx context.Context, info *jetstream.StreamInfo) (epoch, error) {
	e := epoch{Epoch: rand.Text()[:12], Start: s.start()}
	first := info.State.LastSeq + 1
	if first == info.Config.FirstSeq && s.seen.Load() < first && e.Start < first+uint64(fresh.Milliseconds())<<6 {
		e.Start = first
	} else if err := s.purge(ctx, map[string]any{"seq": e.Start}); err != nil { // which skips the sequences below it
		return e, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	_, err = s.append(ctx, &nats.Msg{Subject: s.epochSubject(), Data: data, Header: nats.Header{
		jetstream.MsgTTLHeader:              {"never"},
		jetstream.ExpectedLastSubjSeqHeader: {"0"},
	}})
	if isCode(err, jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return s.readEpoch(ctx)
	}
	return e, err
}

// append stores a message, and returns its sequence. It returns errLoss if the server gives it a
// sequence that was there before: then the stream has lost its newest messages, or all of them.
func (s *stream) append(ctx context.Context, m *nats.Msg) (uint64, error) {
	seen := s.seen.Load()
	answer, err := s.store.request(ctx, m)
	if err != nil {
		return 0, err
	}
	var ack jetstream.PubAck
	if err := decode(answer.Data, &ack); err != nil {
		return 0, err
	}
	if ack.Stream != s.name {
		return 0, fmt.Errorf("the stream %q stores %s, in place of %s", ack.Stream, m.Subject, s.name)
	}
	if ack.Sequence <= seen && !ack.Duplicate {
		s.lost.Store(true)
		s.known.Store(false)
		m.Header.Set(nats.MsgIdHdr, s.store.messageID()) // the message has to be stored again
		return 0, errLoss
	}
	s.saw(ack.Sequence)
	return ack.Sequence, nil
}

// purge removes the messages that req names.
func (s *stream) purge(ctx context.Context, req map[string]any) error {
	var resp struct{}
	return s.store.call(ctx, "STREAM.PURGE."+s.name, req, &resp)
}
