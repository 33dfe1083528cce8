package idempotency_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/idempotency"
)

// model is a Table as a plain map, with one operation for each method.
type model struct {
	t        *testing.T
	r        *rand.Rand
	tab      *table
	requests map[string]*request // by owner and ID
	now      time.Duration
	where    string // seed and step, for messages
}

// request is one request in the model.
type request struct {
	entry   *entry
	sum     uint64
	reply   string // "" before the answer
	open    bool
	expires time.Duration
	runner  *conn
	waiting map[*conn]bool
}

// find returns the request of k, if its time has not ended.
func (m *model) find(k string) *request {
	q := m.requests[k]
	if q != nil && (q.reply != "" || q.open) && q.expires <= m.now {
		delete(m.requests, k)
		return nil
	}
	return q
}

func (m *model) begin(owner, id string, c *conn) {
	k, sum := owner+"/"+id, uint64(m.r.IntN(2))
	q := m.find(k)
	e, reply, o := m.tab.Begin(m.now, owner, id, sum, c)
	switch {
	case q == nil:
		require.Equal(m.t, idempotency.Run, o, m.where)
		m.requests[k] = &request{entry: e, sum: sum, runner: c, waiting: make(map[*conn]bool)}
	case q.sum != sum:
		require.Equal(m.t, idempotency.Differs, o, m.where)
	case q.reply != "":
		require.Equal(m.t, idempotency.Replay, o, m.where)
		require.Equal(m.t, q.reply, string(reply), m.where)
	default:
		require.Equal(m.t, idempotency.Wait, o, m.where)
		q.waiting[c] = true
	}
}

func (m *model) finish(owner, id string) {
	q := m.find(owner + "/" + id)
	if q == nil {
		return
	}
	var waiting []*conn
	var first bool
	if m.r.IntN(2) == 0 {
		waiting, first = m.tab.FinishOf(m.now, owner, id, q.runner, []byte(m.where))
	} else {
		waiting, first = m.tab.Finish(m.now, q.entry, []byte(m.where))
	}
	require.Equal(m.t, q.reply == "", first, m.where)
	if !first {
		return
	}
	delete(q.waiting, q.runner)
	require.Len(m.t, waiting, len(q.waiting), m.where)
	for _, w := range waiting {
		require.True(m.t, q.waiting[w], m.where)
	}
	q.reply, q.expires = m.where, m.now+window
}

func (m *model) leave(owner, id string) {
	q := m.find(owner + "/" + id)
	if q == nil {
		return
	}
	m.tab.Leave(m.now, q.entry)
	if q.reply == "" && !q.open {
		q.open, q.expires = true, m.now+window
	}
}

// TestRandomOperations compares the table with a plain map.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(200) {
		m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), tab: newTable(1<<30, 1<<30), requests: make(map[string]*request)}
		conns := make([]*conn, 5)
		for i := range conns {
			conns[i] = &conn{}
		}
		for step := range 400 {
			m.where = fmt.Sprintf("seed %d, step %d", seed, step)
			owner, id := strconv.Itoa(m.r.IntN(3)), strconv.Itoa(m.r.IntN(6))
			switch op := m.r.IntN(10); {
			case op < 5:
				m.begin(owner, id, conns[m.r.IntN(len(conns))])
			case op < 7:
				m.finish(owner, id)
			case op == 7:
				m.leave(owner, id)
			case op == 8:
				m.now += time.Duration(m.r.Int64N(int64(window)))
			default:
				m.tab.Expire(m.now)
			}
		}
	}
}
