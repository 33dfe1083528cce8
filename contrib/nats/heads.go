package natsbroker

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/qi-realtime/ws"
)

const (
	// mostHeads bounds the rooms of a request for heads. A server answers for up to 1,024 subjects.
	mostHeads = 1000
	// headsBytes bounds the names in such a request.
	headsBytes = 256 << 10
)

// newest is the newest message of a room that this node knows of. Safe for concurrent use.
type newest struct {
	mu   sync.Mutex
	seq  uint64 // 0 for none; guarded by mu
	asOf uint64 // newest sequence of the stream at that time; guarded by mu
}

// set notes the newest message as of a sequence, unless a later one is known, and returns the one that
// was known before.
func (n *newest) set(seq, asOf uint64) (before uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before = n.seq
	if asOf > n.asOf {
		n.seq, n.asOf = seq, asOf
	}
	return before
}

func (n *newest) get() (seq, asOf uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seq, n.asOf
}

// newestOf returns the newest message of a room that this node is subscribed to, or else one that
// nobody looks at.
func (b *Broker) newestOf(room string) *newest {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if s := b.topics[ws.Topic{Kind: ws.TopicHistory, Name: room}]; s != nil {
		return &s.newest
	}
	return new(newest)
}

// Heads returns the positions of the newest messages of rooms, with one or two requests for each
// stream and 1,000 rooms. The server sends the messages that are newer than the last look.
func (h *HistoryBroker) Heads(ctx context.Context, rooms []string) ([]ws.Position, error) {
	heads := make([]ws.Position, len(rooms))
	parts := make(map[*stream][]int)
	for i, room := range rooms {
		s := h.store.streamOf(room)
		parts[s] = append(parts[s], i)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for s, part := range parts {
		wg.Go(func() {
			for len(part) > 0 {
				n, err := s.heads(ctx, rooms, part, heads)
				if err != nil {
					cancel(err)
					return
				}
				part = part[n:]
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return heads, nil
}

// heads sets the heads of rooms with these indexes, and returns the number of rooms for which it did.
func (s *stream) heads(ctx context.Context, rooms []string, indexes []int, heads []ws.Position) (int, error) {
	subjects := make([]string, 0, min(len(indexes), mostHeads))
	known := make([]*newest, 0, cap(subjects))
	for size := 0; len(subjects) < cap(subjects) && size < headsBytes; {
		room := rooms[indexes[len(subjects)]]
		subjects = append(subjects, s.subject(room))
		known = append(known, s.store.broker.newestOf(room))
		size += len(subjects[len(subjects)-1])
	}
	err := s.try(ctx, "heads", func(ctx context.Context, _ *state) error {
		least := ^uint64(0)
		for _, n := range known {
			_, asOf := n.get()
			least = min(least, asOf+1)
		}
		l, err := s.last(ctx, subjects, least)
		if err != nil {
			return err
		}
		for i, subject := range subjects {
			seq := l.newest[subject]
			if seq == 0 { // no message since then
				if seq, _ = known[i].get(); seq < l.state.Start {
					seq = 0
				}
			}
			known[i].set(seq, l.upTo)
			heads[indexes[i]] = ws.Position{Epoch: l.state.Epoch, Offset: seq}
		}
		return nil
	})
	return len(subjects), err
}

// look is an answer about the newest messages of subjects.
type look struct {
	state  *state
	newest map[string]uint64 // sequences by subject
	upTo   uint64            // newest sequence of the stream
}

// last returns the sequences of the newest messages of subjects, without those below least. Each
// request also asks for the epoch: so an answer is empty only if the stream has lost its messages.
func (s *stream) last(ctx context.Context, subjects []string, least uint64) (*look, error) {
	l := &look{newest: make(map[string]uint64)}
	req := directGet{MultiLast: append([]string{s.epochSubject()}, subjects...), Seq: least}
	for more := true; more; {
		a, err := s.ask(ctx, l, req)
		if err != nil {
			return nil, err
		}
		req.Seq = a.last + 1
		more = a.left > 0 && len(a.messages) > 0
	}
	if l.state == nil { // the epoch is older than least
		if _, err := s.ask(ctx, l, directGet{MultiLast: []string{s.epochSubject()}}); err != nil {
			return nil, err
		}
	}
	if l.state == nil {
		return nil, errNoEpoch
	}
	for subject, seq := range l.newest {
		if seq < l.state.Start && subject != s.epochSubject() { // the epoch has begun meanwhile
			return nil, errStale
		}
	}
	return l, nil
}

// ask adds the answer to req.
func (s *stream) ask(ctx context.Context, l *look, req directGet) (*answer, error) {
	seen := s.seen.Load()
	a, err := s.store.getter.Load().get(ctx, s, req)
	switch {
	case err != nil:
		return nil, err
	case a.empty:
		return nil, errNoEpoch
	case a.upTo < seen:
		return nil, errStale
	}
	if l.upTo == 0 {
		l.upTo = a.upTo
	}
	for _, m := range a.messages {
		l.newest[m.subject] = m.seq
		if m.subject != s.epochSubject() {
			continue
		}
		var e epoch
		if err := json.Unmarshal(m.data, &e); err != nil {
			return nil, err
		}
		l.state = s.learn(e)
	}
	return a, nil
}
