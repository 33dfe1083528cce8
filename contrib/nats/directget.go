package natsbroker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/qi-realtime/ws"
)

const (
	// answerBytes bounds the messages of an answer: a server sends the one with which it is reached, and no
	// more.
	answerBytes = 1 << 20

	pendingHeader = "Nats-Num-Pending"
	upToHeader    = "Nats-UpTo-Sequence"
)

// directGet is a request for messages of a stream to any of its replicas. nats.go v1.55.0 has no call
// for one with many messages (see ADR-31 of NATS).
type directGet struct {
	Seq       uint64   `json:"seq,omitempty"`          // the least sequence
	NextFor   string   `json:"next_by_subj,omitempty"` // the messages of this subject, in their order
	Batch     int      `json:"batch,omitempty"`        // the most messages
	MultiLast []string `json:"multi_last,omitempty"`   // the newest message of each of these
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// getter sends requests of directGet on a connection, and collects the answers. Safe for concurrent
// use.
type getter struct {
	nc    *nats.Conn
	inbox string // the start of each subject for answers

	mu    sync.Mutex
	next  uint64             // guarded by mu
	calls map[string]*answer // by subject; guarded by mu
}

// answer is all that a server has sent for a request. Immutable when done is closed.
type answer struct {
	messages []message
	left     uint64 // number of messages beyond these
	upTo     uint64 // newest sequence of the replica, for MultiLast
	empty    bool   // there is no such message
	err      error
	done     chan struct{}
	last     uint64 // sequence of the newest message
}

// message is a message of a stream.
type message struct {
	subject string
	seq     uint64
	at      time.Time
	data    []byte
}

// newGetter returns a getter for a new connection. An error is the end of that.
func newGetter(nc *nats.Conn) *getter {
	g := &getter{nc: nc, inbox: nc.NewInbox() + ".", calls: make(map[string]*answer)}
	if sub, err := nc.Subscribe(g.inbox+"*", g.receive); err == nil {
		_ = sub.SetPendingLimits(-1, -1) // the requests bound them
	}
	return g
}

// get returns the messages, an empty answer if there are none, or nats.ErrNoResponders without a
// stream.
func (g *getter) get(ctx context.Context, s *stream, req directGet) (*answer, error) {
	req.MaxBytes = answerBytes
	data, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	a := &answer{done: make(chan struct{})}
	g.mu.Lock()
	g.next++
	reply := g.inbox + strconv.FormatUint(g.next, 36)
	g.calls[reply] = a
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.calls, reply)
		g.mu.Unlock()
	}()
	if err := g.nc.PublishRequest(apiPrefix+"DIRECT.GET."+s.name, reply, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	select {
	case <-a.done:
		return a, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// receive takes a message of an answer.
func (g *getter) receive(m *nats.Msg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.calls[m.Subject]
	if a == nil || !a.add(m) {
		return
	}
	delete(g.calls, m.Subject)
	close(a.done)
}

// add adds a message of the server, and reports whether it is the last one.
func (a *answer) add(m *nats.Msg) bool {
	status := m.Header.Get("Status")
	previous, _ := strconv.ParseUint(m.Header.Get(jetstream.LastSequenceHeader), 10, 64)
	switch status {
	case "":
		next, err := parse(m)
		if err == nil && previous != a.last {
			err = errIncomplete
		}
		if err != nil && a.err == nil {
			a.err = err
		}
		a.messages = append(a.messages, next)
		a.last = next.seq
		return false
	case "204": // the end
		if previous != a.last && a.err == nil {
			a.err = errIncomplete
		}
		a.left, _ = strconv.ParseUint(m.Header.Get(pendingHeader), 10, 64)
		a.upTo, _ = strconv.ParseUint(m.Header.Get(upToHeader), 10, 64)
	case "404":
		a.empty = true
	case "503":
		a.err = nats.ErrNoResponders
	default:
		a.err = fmt.Errorf("direct get: %s %s", status, m.Header.Get("Description"))
	}
	return true
}

// parse returns the message in an answer.
func parse(m *nats.Msg) (message, error) {
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return message{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	return message{m.Header.Get(jetstream.SubjectHeader), seq, at, m.Data}, err
}

// read returns a page of the messages of a room.
func (s *stream) read(ctx context.Context, room string, after uint64, limit int) (page ws.HistoryPage, err error) {
	g, subject := s.store.getter.Load(), s.subject(room)
	a, err := g.get(ctx, s, directGet{NextFor: subject, Seq: after, Batch: limit + 1})
	if err != nil {
		return page, err
	}
	messages := a.messages
	page.Base = after
	if len(messages) > 0 {
		if messages[0].seq != after {
			page.Base = messages[0].seq - 1
		} else if messages = messages[1:]; len(messages) == 0 && a.left > 0 { // it is as large as an answer
			if a, err = g.get(ctx, s, directGet{NextFor: subject, Seq: after + 1, Batch: limit}); err != nil {
				return page, err
			}
			messages = a.messages
		}
	}
	s.saw(a.last) // so that the replica that answers next has these messages
	l, err := s.last(ctx, []string{subject}, 0)
	if err != nil {
		return page, err
	}
	page.Epoch, page.Top = l.state.Epoch, l.newest[subject]
	s.store.broker.newestOf(room).set(page.Top, l.upTo)
	return page, s.fill(&page, l.state, after, messages[:min(len(messages), limit)])
}

// fill completes a page with the messages behind after.
func (s *stream) fill(page *ws.HistoryPage, st *state, after uint64, messages []message) error {
	if len(messages) == 0 {
		if page.Top > after { // it came meanwhile, or the first replica is behind
			return errStale
		}
		if page.Top == 0 && after >= st.Start { // too old, or removed by Forget
			page.Top = after
		}
		page.Base = page.Top
		return nil
	}
	if messages[0].seq < st.Start { // the epoch has begun meanwhile
		return errStale
	}
	now := time.Now()
	page.Messages = make([]ws.StoredMessage, 0, len(messages))
	for _, m := range messages {
		page.Messages = append(page.Messages, ws.StoredMessage{Offset: m.seq, Age: max(0, now.Sub(m.at)), Data: m.data})
	}
	page.Top = max(page.Top, messages[len(messages)-1].seq)
	return nil
}

// receiveStored hands a message that the server has stored to the node.
func (b *Broker) receiveStored(sub *subscription, m *nats.Msg) {
	s := b.store.streamOf(sub.topic.Name)
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	previous, err2 := strconv.ParseUint(m.Header.Get(jetstream.LastSequenceHeader), 10, 64)
	st := s.state.Load()
	if err != nil || err2 != nil || st == nil || seq < st.Start {
		return // it is not of the server, or not of this epoch
	}
	s.saw(seq)
	name := st.Epoch
	if before := sub.newest.set(seq, seq); previous == 0 && before >= st.Start && before < seq {
		name = "" // the room had messages: the node has to read whether this is another epoch
	}
	b.node.ReceiveStored(sub.topic.Name, name, ws.StoredMessage{Offset: seq, Prev: previous, Data: m.Data})
}
