package cluster_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/client"
)

// settling is the time after the begin of a membership in which the subscription of the node may not be
// effective yet.
const settling = 5 * time.Second

// moving is the time after an attempt to connect in which a client may take its messages from two nodes.
const moving = 15 * time.Second

// tally counts the experiences of clients.
type tally struct {
	Received int
	Cuts     int // ends of connections without a new one
	Gaps     int // that were read

	LostWhileCut int
	LostInGap    int
	TwiceInGap   int // in a move with a gap: a node was silent, or slow

	// Broken promises.
	Silent     int // lost for none of these reasons
	Duplicates int // or messages out of order
}

// add adds the counts of another tally, times sign.
func (t *tally) add(o tally, sign int) {
	t.Received += sign * o.Received
	t.Cuts += sign * o.Cuts
	t.Gaps += sign * o.Gaps
	t.LostWhileCut += sign * o.LostWhileCut
	t.LostInGap += sign * o.LostInGap
	t.TwiceInGap += sign * o.TwiceInGap
	t.Silent += sign * o.Silent
	t.Duplicates += sign * o.Duplicates
}

// record checks the messages of one room as a client reads them. Not safe for concurrent use.
type record struct {
	tally

	publishers map[string]*heard
	unsure     time.Time // of the last cut, gap or attempt to connect
	attempt    time.Time // of the last attempt to connect
	gapInMove  bool      // there was a gap since then, perhaps one without a room
	faults     []string

	// history is set for a room with a history: then a loss has to lie in a gap, and no message comes
	// twice, whatever happens to connections.
	history  bool
	position client.Position
	holes    []hole
}

// hole is a message of a publisher that was not read in a room with a history. Immutable.
type hole struct {
	publisher string
	n         int
	named     bool // by a gap
}

// heard is the last message of a publisher, with the counts of that time.
type heard struct {
	n          int
	sent       int64
	cuts, gaps int
}

func newRecord(now time.Time) *record {
	return &record{publishers: make(map[string]*heard), unsure: now}
}

// cut notes that there is no connection any more.
func (r *record) cut(now time.Time) {
	r.Cuts++
	r.unsure = now
}

// gap notes a gap of the room.
func (r *record) gap(now time.Time) {
	r.Gaps++
	r.unsure, r.gapInMove = now, true
}

// connecting notes an attempt to connect.
func (r *record) connecting(now time.Time) { r.unsure, r.attempt, r.gapInMove = now, now, false }

// read checks a message. The position is zero in a room without a history.
func (r *record) read(m message, at client.Position, now time.Time) {
	r.Received++
	if r.history {
		if at.Epoch == r.position.Epoch && at.Offset <= r.position.Offset {
			r.Duplicates++
			r.fault("%+v came after %+v", at, r.position)
		}
		r.position = at
	}
	h := r.publishers[m.Publisher]
	if h == nil {
		h = &heard{cuts: r.Cuts, gaps: r.Gaps}
		if m.Started < r.unsure.Add(settling).UnixNano() {
			h.n = m.N - 1 // the messages before are not for this client, or it knows of a loss
		}
		r.publishers[m.Publisher] = h
	}
	missing := m.N - h.n - 1
	switch {
	case missing < 0 && !r.history && h.cuts == r.Cuts && r.gapInMove && now.Sub(r.attempt) < moving:
		r.TwiceInGap++
		return
	case missing < 0:
		r.Duplicates++
		r.fault("%s: %d came after %d", m.Publisher, m.N, h.n)
		return
	case missing > 0:
		r.lose(h, missing, m)
	}
	*h = heard{m.N, m.Sent, r.Cuts, r.Gaps}
}

// lose finds the reason why messages before m are missing.
func (r *record) lose(h *heard, missing int, m message) {
	switch {
	case h.cuts < r.Cuts && !r.history:
		r.LostWhileCut += missing
	case r.history:
		for n := h.n + 1; n < m.N; n++ {
			r.holes = append(r.holes, hole{m.Publisher, n, h.gaps < r.Gaps})
		}
	case h.gaps < r.Gaps:
		r.LostInGap += missing
	default:
		r.Silent += missing
		r.fault("%s: %d follows %d, without a gap", m.Publisher, m.N, h.n)
	}
}

func (r *record) fault(format string, args ...any) {
	if len(r.faults) < 3 {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}

// settle counts the holes whose publish has not failed.
func (r *record) settle(failed func(h hole) bool) {
	for _, h := range r.holes {
		switch {
		case failed(h):
		case h.named:
			r.LostInGap++
		default:
			r.Silent++
			r.fault("%s: %d is missing, without a gap", h.publisher, h.n)
		}
	}
	r.holes = nil
}

// hears reports whether the client has read a message of each of these publishers that was sent
// after a time.
func (r *record) hears(publishers []string, after time.Time) bool {
	for _, p := range publishers {
		if h := r.publishers[p]; h == nil || h.sent <= after.UnixNano() {
			return false
		}
	}
	return true
}

// TestRecord feeds a record with words: a number is a message, the others are events.
func TestRecord(t *testing.T) {
	for name, c := range map[string]struct {
		words []any
		want  tally
	}{
		"history":        {[]any{"history", 1, 2, 3}, tally{Received: 3}},
		"history, cut":   {[]any{"history", 1, "cut", 4}, tally{Received: 2, Cuts: 1, Silent: 2}},
		"history, move":  {[]any{"history", 1, "connecting", 3}, tally{Received: 2, Silent: 1}},
		"history, gap":   {[]any{"history", 1, "cut", "gap", 4}, tally{Received: 2, Cuts: 1, Gaps: 1, LostInGap: 2}},
		"history, holes": {[]any{"history", 8, 10}, tally{Received: 2}},
		"history, twice": {[]any{"history", 1, "connecting", 1}, tally{Received: 2, Duplicates: 2}},

		"in order":          {[]any{1, 2, 3}, tally{Received: 3}},
		"silence":           {[]any{1, 2, 5}, tally{Received: 3, Silent: 2}},
		"gap":               {[]any{1, "gap", 4, 5}, tally{Received: 3, Gaps: 1, LostInGap: 2}},
		"gap without loss":  {[]any{1, "gap", 2}, tally{Received: 2, Gaps: 1}},
		"gap too early":     {[]any{1, "gap", 2, 4}, tally{Received: 3, Gaps: 1, Silent: 1}},
		"gap too late":      {[]any{1, 3, "gap"}, tally{Received: 2, Gaps: 1, Silent: 1}},
		"cut":               {[]any{1, "cut", 4}, tally{Received: 2, Cuts: 1, LostWhileCut: 2}},
		"after a cut":       {[]any{1, "cut", 4, 6}, tally{Received: 3, Cuts: 1, LostWhileCut: 2, Silent: 1}},
		"cut and gap":       {[]any{1, "cut", "gap", 4}, tally{Received: 2, Cuts: 1, Gaps: 1, LostWhileCut: 2}},
		"move":              {[]any{1, "connecting", 3}, tally{Received: 2, Silent: 1}},
		"twice in a move":   {[]any{1, 2, "connecting", 2, 3}, tally{Received: 4, Duplicates: 1}},
		"twice after a cut": {[]any{1, 2, "connecting", "cut", 2, 3}, tally{Received: 4, Cuts: 1, Duplicates: 1}},
		"twice in a gap":    {[]any{1, 2, "connecting", "gap", 2, 3}, tally{Received: 4, Gaps: 1, TwiceInGap: 1}},
		"twice":             {[]any{1, 2, 2, 3}, tally{Received: 4, Duplicates: 1}},
		"order":             {[]any{1, "gap", 3, 2, 4}, tally{Received: 4, Gaps: 1, LostInGap: 1, Duplicates: 1}},
		"late publisher":    {[]any{"wait", "start", 1, 2}, tally{Received: 2}},
		"its first lost":    {[]any{"wait", "start", 2, 3}, tally{Received: 2, Silent: 1}},
		"old publisher":     {[]any{7, 8}, tally{Received: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			r := newRecord(now)
			started := now
			now = now.Add(2 * settling)
			for _, word := range c.words {
				switch word {
				case "gap":
					r.gap(now)
				case "cut":
					r.cut(now)
				case "connecting":
					r.connecting(now)
				case "wait":
					now = now.Add(2 * settling)
				case "start":
					started = now
				case "history":
					r.history = true
				default:
					n := word.(int)
					at := client.Position{Epoch: "e", Offset: int64(n)}
					r.read(message{Publisher: "p", N: n, Started: started.UnixNano()}, at, now)
				}
			}
			r.settle(func(h hole) bool { return h.n == 9 })
			assert.Equal(t, c.want, r.tally)
			assert.Equal(t, c.want.Silent+c.want.Duplicates > 0, len(r.faults) > 0)
		})
	}
}

// numbers returns the number of the last message of each publisher.
func (r *record) numbers() map[string]int {
	numbers := make(map[string]int)
	for p, h := range maps.All(r.publishers) {
		numbers[p] = h.n
	}
	return numbers
}
