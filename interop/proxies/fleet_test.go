package proxies_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/qi-realtime/ws"
)

const (
	membersOfRoom = 10
	maxTexts      = 512 // of one member

	// unanswered is the number of receivers of a text whose answer has not come.
	unanswered = -1

	firstBackoff, lastBackoff = 500 * time.Millisecond, 30 * time.Second
	steady                    = 10 * time.Second // after which a connection forgets earlier failures
)

// fleet is many clients of examples/service that follow the rules of docs/operations.md for
// clients. Each says numbered texts in its room. The server's answer has the number of members for
// which a text was queued, so that each lost text is found. Safe for concurrent use.
type fleet struct {
	url, token string
	every      time.Duration // between the texts of a member
	dialer     websocket.Dialer
	members    []*member
	running    sync.WaitGroup

	mu       sync.Mutex
	refusals map[string]int // of connects, by their error
	faults   []string       // broken promises
	moves    []move
}

// move is the way of one member from one connection to another.
type move struct {
	asked  time.Time // the close frame, or the event ws.reconnect
	opened time.Time // the member has joined its room on the new connection
	gap    time.Duration
	notice bool
}

// newFleet returns n members. Every second one understands the event ws.reconnect.
func newFleet(addr, token string, n int, every time.Duration) *fleet {
	f := &fleet{
		url: "ws://" + addr + "/ws", token: token, every: every, refusals: make(map[string]int),
		dialer: websocket.Dialer{HandshakeTimeout: patience, ReadBufferSize: 1024, WriteBufferSize: 1024},
	}
	for i := range n {
		f.members = append(f.members, &member{
			fleet: f, number: i, room: fmt.Sprintf("room %d", i/membersOfRoom), notice: i%2 == 0,
		})
	}
	return f
}

// start connects all members, a few at a time. They run until ctx ends.
func (f *fleet) start(ctx context.Context) {
	turns := make(chan struct{}, 100)
	for _, m := range f.members {
		f.running.Go(func() { m.run(ctx, turns) }) // fleet.running waits
	}
}

func (f *fleet) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (f *fleet) refused(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusals[err.Error()]++
}

func (f *fleet) moved(m move) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moves = append(f.moves, m)
}

// takeMoves returns the next n moves, or nil if there are fewer.
func (f *fleet) takeMoves(n int) []move {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.moves) < n {
		return nil
	}
	moves := f.moves
	f.moves = nil
	return moves
}

// connected returns the number of members with a connection.
func (f *fleet) connected() (n int) {
	for _, m := range f.members {
		if m.connected.Load() {
			n++
		}
	}
	return n
}

// account is the sum of all texts.
type account struct {
	accepted, unanswered int // texts
	queued, received     int // deliveries of accepted texts
	wrong                int // accepted texts with another number of receivers than the answer has
}

func (f *fleet) account() (a account) {
	for _, m := range f.members {
		for i := range min(m.said.Load(), maxTexts) {
			text := &m.texts[i]
			queued, received := int(text.queued.Load()), int(text.received.Load())
			if queued == unanswered {
				a.unanswered++
				continue
			}
			a.accepted++
			a.queued += queued
			a.received += received
			if queued != received {
				a.wrong++
			}
		}
	}
	return a
}

// member is one client of a fleet. Its goroutine alone sends.
type member struct {
	fleet  *fleet
	number int
	room   string
	notice bool

	failures int // of connects, for the backoff

	connected atomic.Bool
	quiet     atomic.Bool // says nothing more
	said      atomic.Int64
	texts     [maxTexts]struct{ queued, received atomic.Int32 }
}

// run keeps the member connected until ctx ends.
func (m *member) run(ctx context.Context, turns chan struct{}) {
	turns <- struct{}{}
	c := m.connect(ctx)
	<-turns
	phase := time.NewTimer(rand.N(m.fleet.every))
	defer phase.Stop()
	for c != nil {
		m.connected.Store(true)
		select {
		case <-ctx.Done():
			c.leave()
			return
		case <-phase.C:
			phase.Reset(m.fleet.every)
			m.say(c)
		case end := <-c.ended:
			c = m.reconnect(ctx, end)
		case asked := <-c.move:
			c = m.moveFrom(ctx, c, asked)
		}
	}
}

// say sends the next text.
func (m *member) say(c *connection) {
	n := m.said.Load()
	if m.quiet.Load() || n == maxTexts {
		return
	}
	m.texts[n].queued.Store(unanswered)
	m.said.Store(n + 1)
	c.outstanding.Add(1)
	c.send("say", strconv.FormatInt(n, 10), map[string]string{"room": m.room, "text": fmt.Sprintf("%d %d", m.number, n)})
}

// reconnect opens the connection that follows one that has ended.
func (m *member) reconnect(ctx context.Context, end ending) *connection {
	m.connected.Store(false)
	wait := end.retry
	switch {
	case ctx.Err() != nil:
		return nil
	case end.code != 1012 && end.code != 1001 && end.code != 1006:
		m.fleet.fault("member %d: closed with %d %s", m.number, end.code, end.err)
		return nil
	case wait < 0:
		wait = m.backoff()
	}
	if !pause(ctx, wait) {
		return nil
	}
	c := m.connect(ctx)
	if c != nil {
		m.fleet.moved(move{asked: end.at, opened: c.opened, gap: c.opened.Sub(end.at)})
	}
	return c
}

// moveFrom opens a new connection, and then closes the old one behind its outstanding answers.
func (m *member) moveFrom(ctx context.Context, old *connection, asked notice) *connection {
	if !pause(ctx, asked.retry) {
		return nil
	}
	c := m.connect(ctx)
	if c == nil {
		return nil
	}
	moved := move{asked: asked.at, opened: c.opened, notice: true}
	select {
	case end := <-old.ended: // the server did not wait
		moved.gap = max(c.opened.Sub(end.at), 0)
	default:
		m.fleet.running.Go(old.leave) // fleet.running waits
	}
	m.fleet.moved(moved)
	return c
}

// connect connects and joins the room, and tries again until ctx ends. It returns nil then.
func (m *member) connect(ctx context.Context) *connection {
	for {
		c, err := m.tryConnect(ctx)
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			return nil
		}
		m.fleet.refused(err)
		if !pause(ctx, m.backoff()) {
			return nil
		}
	}
}

func (m *member) tryConnect(ctx context.Context) (*connection, error) {
	f := m.fleet
	d := f.dialer
	if d.Subprotocols = []string{"rooms.v1"}; m.notice {
		d.Subprotocols = []string{"rooms.v2"}
	}
	conn, resp, err := d.DialContext(ctx, f.url, http.Header{"Authorization": {"Bearer " + f.token}})
	if err != nil {
		if resp != nil {
			return nil, errors.New(resp.Status)
		}
		return nil, err
	}
	c := &connection{
		member: m, conn: conn, joined: make(chan struct{}),
		ended: make(chan ending, 1), move: make(chan notice, 1), last: make(map[int]int),
	}
	f.running.Go(c.read) // fleet.running waits
	c.send("join", "join", m.room)
	select {
	case <-c.joined:
		c.opened = time.Now()
		return c, nil
	case end := <-c.ended: // closed before it was used
		return nil, fmt.Errorf("closed with %d before the answer to join", end.code)
	case <-ctx.Done():
		_ = conn.Close()
		return nil, ctx.Err()
	}
}

// backoff returns the time before the next try: full jitter, doubling.
func (m *member) backoff() time.Duration {
	limit := min(firstBackoff<<min(m.failures, 10), lastBackoff)
	m.failures++
	return rand.N(limit)
}

// pause waits for d. It returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// connection is one connection of a member. The member's goroutine writes, the other one reads.
type connection struct {
	member      *member
	conn        *websocket.Conn
	opened      time.Time
	joined      chan struct{} // closed by the answer to join
	ended       chan ending
	move        chan notice
	outstanding atomic.Int64 // requests without an answer

	last map[int]int // of the reading goroutine: number of the last text by its sender
}

// ending is the end of a connection.
type ending struct {
	at    time.Time
	code  int
	retry time.Duration // of the close reason; -1 without one
	err   error
}

// notice is a received ws.reconnect.
type notice struct {
	at    time.Time
	retry time.Duration
}

// retryReason is the reason of a close frame, and the data of ws.reconnect.
type retryReason struct {
	RetryMS *int64 `json:"retry_ms"`
}

func (r retryReason) duration() time.Duration {
	if r.RetryMS == nil {
		return -1
	}
	return time.Duration(*r.RetryMS) * time.Millisecond
}

func (c *connection) send(event, id string, data any) {
	encoded, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience)) // read reports the end of the connection
	_ = c.conn.WriteJSON(ws.Message{Type: ws.TypeRequest, Event: event, RequestID: id, Data: encoded})
}

// leave closes the connection when all requests are answered, and waits for its end.
func (c *connection) leave() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); c.outstanding.Load() > 0 && time.Now().Before(deadline); {
		<-tick.C
	}
	frame := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)) // it may have ended
	select {
	case end := <-c.ended:
		if c.outstanding.Load() > 0 || end.code == 1006 {
			c.member.fleet.fault("member %d: left with %d requests without an answer: %v",
				c.member.number, c.outstanding.Load(), end.err)
		}
	case <-time.After(patience):
		c.member.fleet.fault("member %d: its close frame is not answered", c.member.number)
		_ = c.conn.Close()
	}
}

// read reads until the connection ends.
func (c *connection) read() {
	defer c.conn.Close()
	for {
		var got struct {
			Type      string          `json:"type"`
			Event     string          `json:"event"`
			RequestID string          `json:"request_id"`
			Code      int             `json:"code"`
			Data      json.RawMessage `json:"data"`
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(2 * patience)) // pings come, too
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			c.ended <- endingOf(err)
			return
		}
		if err := json.Unmarshal(text, &got); err != nil {
			c.member.fleet.fault("not JSON: %.100q", text)
			continue
		}
		switch {
		case got.RequestID == "join" && got.Code == http.StatusOK:
			close(c.joined)
		case got.RequestID != "":
			c.answered(got.RequestID, got.Code, got.Data)
		case got.Event == "said":
			c.received(got.Data)
		case got.Event == "ws.reconnect":
			var data retryReason
			_ = json.Unmarshal(got.Data, &data) // without a time: at once
			c.move <- notice{time.Now(), max(data.duration(), 0)}
		default:
			c.member.fleet.fault("unexpected: %.100q", text)
		}
	}
}

func endingOf(err error) ending {
	end := ending{at: time.Now(), code: websocket.CloseAbnormalClosure, retry: -1, err: err}
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		end.code = closed.Code
		var reason retryReason
		if json.Unmarshal([]byte(closed.Text), &reason) == nil {
			end.retry = reason.duration()
		}
	}
	return end
}

// answered notes the number of members for which a text was queued.
func (c *connection) answered(id string, code int, data json.RawMessage) {
	n, err := strconv.Atoi(id)
	queued, errData := strconv.Atoi(string(data))
	if err != nil || errData != nil || code != http.StatusOK {
		c.member.fleet.fault("answer to %q: %d %s", id, code, data)
		return
	}
	c.member.texts[n].queued.Store(int32(queued))
	c.outstanding.Add(-1)
}

// received notes a text. A connection gets the texts of a sender in their order, each once.
func (c *connection) received(data json.RawMessage) {
	var said struct{ Text string }
	_ = json.Unmarshal(data, &said) // an empty text is a fault
	sender, number, _ := strings.Cut(said.Text, " ")
	from, err := strconv.Atoi(sender)
	n, errNumber := strconv.Atoi(number)
	if err != nil || errNumber != nil {
		c.member.fleet.fault("text %q", said.Text)
		return
	}
	if last, known := c.last[from]; known && n <= last {
		c.member.fleet.fault("member %d: text %d of %d came after %d", c.member.number, n, from, last)
	}
	c.last[from] = n
	c.member.fleet.members[from].texts[n].received.Add(1)
}

// report logs the refusals and faults, which must not be.
func (f *fleet) report(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.faults {
		t.Errorf("fault: %s", fault)
	}
	for text, n := range f.refusals {
		t.Errorf("%d connects failed: %s", n, text)
	}
}
