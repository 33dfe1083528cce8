//go:build heavy && linux

package integration_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/race"
)

// One member in twenty of a large room never reads: the others lose nothing, and the server keeps
// only references to frames that all share for the slow ones.
func TestScenarioHeavySlowMembers(t *testing.T) {
	plans := []slowPlan{
		{name: "the newest message is dropped", lose: losesTheNewest},
		{
			name: "the oldest message is dropped", lose: losesTheOldest,
			opts: []ws.Option{ws.WithOverflowPolicy(ws.DropOldest)},
		},
		{
			name: "the client is disconnected", lose: losesTheConnection,
			opts: []ws.Option{ws.WithOverflowPolicy(ws.Disconnect), func(c *ws.Config) { c.CloseTimeout = 10 * time.Minute }},
		},
		{
			name: "messages are conflated", lose: losesTheConflated,
			message: func(n int) []ws.MessageOption {
				return []ws.MessageOption{ws.ConflateKey(fmt.Sprint(n % slowKeys))}
			},
		},
		{
			name: "messages expire", lose: losesTheExpired, rate: 20, // so that none expires for a healthy member
			message: func(int) []ws.MessageOption { return []ws.MessageOption{ws.TTL(10 * time.Second)} },
		},
	}
	for _, plan := range plans {
		plan.members, plan.slowEvery, plan.rate, plan.length = 10_000, 20, cmp.Or(plan.rate, 50), 12*time.Second
		t.Run(plan.name, func(t *testing.T) { slowMembers(t, plan) })
	}
}

// slowPlan is a run of slowMembers.
type slowPlan struct {
	name               string
	members, slowEvery int           // one of this number of members never reads
	rate               int           // messages per second that are published
	length             time.Duration // how long
	opts               []ws.Option
	message            func(n int) []ws.MessageOption // of message n; nil for none
	// lose checks the losses of the slow members.
	lose func(t *testing.T, r *slowRun)
}

const (
	slowBound = 256  // messages of a client's queue, the default
	slowSize  = 1024 // bytes of a message
	slowFrame = slowSize + 4
	slowLeast = 2 * slowBound // messages that fill sockets and queues of the slow
	slowUser  = 1             // user of the slow members

	// slowAhead is how many messages the publisher may be ahead of any
	// healthy member. It bounds how deep their queues get, whose memory is kept
	// for reuse: 4 MiB at most, which are there before anything is measured.
	slowAhead = 32
)

// slowRun is the state of a run.
type slowRun struct {
	slowPlan
	*harness.Server
	t      *testing.T
	client *slowProcess
	slow   []*ws.Client

	published int           // all messages, numbered from 0
	dropped   ws.DropCounts // while the slow members did not read
	report    slowReport
}

func slowMembers(t *testing.T, plan slowPlan) {
	r := &slowRun{slowPlan: plan, t: t}
	r.Server = startScenario(t, plan.opts...)
	r.client = startSlowProcess(t, slowOrder{r.AddrOf(harness.Native), plan.members, plan.slowEvery})
	r.client.expect(t, "connected")
	harness.Eventually(t, func() bool { return r.GetClientCount() == plan.members }, "%d clients", plan.members)
	r.RangeClients(func(c *ws.Client) bool {
		if c.UserID == slowUser {
			r.slow = append(r.slow, c)
		}
		return assert.NoError(t, c.JoinRoom("prices"))
	})
	require.Len(t, r.slow, plan.members/plan.slowEvery)
	for range slowAhead { // queues as deep as they will be are in the free list after this
		r.publish()
	}
	r.settle()

	heap, rss := slowMemory(t)
	before := r.Stats().Total
	warm, queued := r.published, r.queuedMessages()
	r.publishAll()
	r.settle()
	heap1, rss1 := slowMemory(t)
	r.checkMemory(r.published-warm, heap1-heap, rss1-rss)
	after := r.Stats().Total
	r.dropped = after.Drops
	room, ok := r.GetRoom("prices")
	require.True(t, ok)
	assert.Equal(t, after.Drops, room.Drops(), "nobody publishes but to the room")
	if room.MemberCount() == plan.members { // a disconnected member leaves the room
		assert.EqualValues(t, (r.published-warm)*plan.members,
			after.MessagesOut-before.MessagesOut+after.Drops.Lost()-before.Drops.Lost()+
				after.Drops.Conflated-before.Drops.Conflated+uint64(r.queuedMessages()-queued),
			"each message was sent to each member, or waits, or is counted as dropped")
	}

	r.client.say("resume")
	for _, c := range r.slow {
		harness.Eventually(t, func() bool { return c.QueuedBytes() == 0 }, "a slow member that reads again")
	}
	r.publish()
	r.report = r.client.report(t, r.published)
	assert.Zero(t, r.report.Disorder, "a healthy member lost a message, got one twice or out of order")
	assert.Zero(t, r.report.Torn, "messages came in another shape")
	require.Len(t, r.report.Slow, len(r.slow))
	plan.lose(t, r)
}

// publish publishes one message, when no healthy member is too far behind.
func (r *slowRun) publish() {
	r.t.Helper()
	harness.Eventually(r.t, func() bool { return r.published-int(r.client.at.Load()) < slowAhead },
		"the healthy members are behind")
	if r.message == nil {
		require.NoError(r.t, r.BroadcastToRoom("prices", slowMessage(r.published), nil))
	} else {
		_, err := r.Publish("prices", slowMessage(r.published), r.message(r.published)...)
		require.NoError(r.t, err)
	}
	r.published++
}

// slowMessage is the message of a number.
func slowMessage(n int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, slowSize), uint64(n))
	return append(b, bytes.Repeat([]byte{byte(n)}, slowSize-len(b))...)
}

// settle waits until every healthy member has everything.
func (r *slowRun) settle() {
	r.t.Helper()
	harness.Eventually(r.t, func() bool { return int(r.client.at.Load()) == r.published },
		"the healthy members are behind")
}

// publishAll publishes at the rate of the plan, or as fast as the machine can, and at least enough
// to fill the queues of the slow.
func (r *slowRun) publishAll() {
	r.t.Helper()
	began, first := time.Now(), r.published
	tick := time.NewTimer(0)
	defer tick.Stop()
	for n := 0; time.Since(began) < r.length || n < slowLeast; n++ {
		tick.Reset(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(r.rate))))
		<-tick.C
		r.publish()
		if n%r.rate == 0 {
			for _, c := range r.slow { // a message that is about to be refused is counted for a moment
				require.LessOrEqual(r.t, c.QueuedBytes(), (slowBound+1)*slowFrame)
			}
		}
	}
	took := time.Since(began)
	r.t.Logf("%d messages in %v to %d members: %.1f of %d per second", r.published-first, took.Round(time.Millisecond),
		r.members, float64(r.published-first)/took.Seconds(), r.rate)
}

// queuedMessages counts the messages that wait for all members.
func (r *slowRun) queuedMessages() (n int) {
	r.RangeClients(func(c *ws.Client) bool {
		n += c.QueuedBytes() / slowFrame
		return true
	})
	return n
}

// slowMemory returns the reachable heap and the resident memory.
func slowMemory(t *testing.T) (heap, rss int) {
	t.Helper()
	heap = int(heapInUse())
	debug.FreeOSMemory()
	return heap, residentBytes(t)
}

// checkMemory checks by how much the memory has grown while messages were
// published: by the frames, once each, and by the references to them.
func (r *slowRun) checkMemory(messages, heap, rss int) {
	const slack = 4 << 20
	frames := messages * 1330                  // with its header and the allocator's rounding
	references := len(r.slow) * slowBound * 16 // a slice has room for twice as many
	budget := frames + references + slack
	copies := len(r.slow) * slowBound * slowSize
	r.t.Logf("heap grew by %d KiB, RSS by %d KiB; budget %d KiB = frames %d + references %d + slack %d; "+
		"copies were %d KiB", heap>>10, rss>>10, budget>>10, frames>>10, references>>10, slack>>10, copies>>10)
	require.Less(r.t, budget, copies/4, "the budget shows nothing")
	if race.Enabled {
		return // its shadow memory is no measure
	}
	assert.LessOrEqual(r.t, heap, budget, "heap")
	assert.LessOrEqual(r.t, rss, budget, "resident memory")
}

// lost counts the messages before the last that the slow members did not get.
func (r *slowRun) lost() (n int) {
	for _, m := range r.report.Slow {
		n += r.published - m.Count
	}
	return n
}

// losesTheNewest checks the losses of slow members if a full queue refuses new messages.
func losesTheNewest(t *testing.T, r *slowRun) {
	for i, m := range r.report.Slow {
		require.Equal(t, r.published-1, m.Last, "slow member %d has the messages that came when it read again", i)
		require.Equal(t, m.Prefix+1, m.Count, "slow member %d has the oldest and the last", i)
		require.GreaterOrEqual(t, m.Prefix, slowBound, "slow member %d", i)
	}
	assert.Equal(t, ws.DropCounts{Full: uint64(r.lost())}, r.dropped)
	assert.Positive(t, r.lost())
}

// losesTheOldest checks the losses of slow members if a full queue drops the oldest messages: they
// have the newest messages that it holds.
func losesTheOldest(t *testing.T, r *slowRun) {
	for i, m := range r.report.Slow {
		require.True(t, m.Ordered, "slow member %d", i)
		require.Equal(t, r.published-1, m.Last, "slow member %d has the messages that came when it read again", i)
		require.Equal(t, m.Prefix+m.Suffix, m.Count, "slow member %d has the first and the last", i)
		require.GreaterOrEqual(t, m.Suffix, slowBound-1, "slow member %d: all but the one half sent", i)
	}
	assert.Equal(t, ws.DropCounts{Full: uint64(r.lost())}, r.dropped)
	assert.Positive(t, r.lost())
}

// losesTheConnection checks the losses of slow members that are disconnected.
func losesTheConnection(t *testing.T, r *slowRun) {
	for i, m := range r.report.Slow {
		require.Equal(t, ws.CloseTryAgainLater, m.CloseCode, "slow member %d", i)
		require.True(t, m.Ended, "slow member %d", i)
		require.Equal(t, m.Prefix, m.Count, "slow member %d has the first messages", i)
	}
	assert.Equal(t, len(r.healthy()), r.GetClientCount())
	assert.EqualValues(t, len(r.slow), r.dropped.Full, "one message was too many for each")
	assert.GreaterOrEqual(t, r.dropped.Lost(), uint64(len(r.slow)*slowBound), "the queue of each")
	assert.LessOrEqual(t, r.dropped.Lost(), uint64(r.lost()), "most later messages are not for them any more")
}

// healthy returns the members that read.
func (r *slowRun) healthy() (clients []*ws.Client) {
	for _, c := range r.GetRoomMembers("prices") {
		if c.UserID != slowUser {
			clients = append(clients, c)
		}
	}
	return clients
}

// slowKeys is the number of conflation keys: more than the messages that
// wait for a healthy member, which therefore loses none.
const slowKeys = 2 * slowAhead

// losesTheConflated checks the losses of slow members if newer messages replace older ones: they
// have the newest of each key.
func losesTheConflated(t *testing.T, r *slowRun) {
	for i, m := range r.report.Slow {
		require.Equal(t, r.published-1, m.Last, "slow member %d has the messages that came when it read again", i)
		require.Equal(t, slowKeys, m.Recent, "slow member %d has the newest of each key", i)
	}
	assert.Equal(t, ws.DropCounts{Conflated: uint64(r.lost())}, r.dropped)
	assert.Positive(t, r.lost())
}

// losesTheExpired checks the losses of slow members if messages may wait for a few seconds: they
// have the latest.
func losesTheExpired(t *testing.T, r *slowRun) {
	for i, m := range r.report.Slow {
		require.True(t, m.Ordered, "slow member %d", i)
		require.Equal(t, r.published-1, m.Last, "slow member %d has the messages that came when it read again", i)
		require.Less(t, m.Prefix+m.Suffix, r.published, "slow member %d has lost nothing", i)
	}
	all := r.Stats().Total.Drops // some expired while the slow read again
	assert.Equal(t, ws.DropCounts{Expired: uint64(r.lost()) - all.Full, Full: all.Full}, all)
	assert.Less(t, all.Full, all.Expired/10, "a publisher that was held up and catches up may fill the queues")
	assert.GreaterOrEqual(t, all.Expired, r.dropped.Expired)
	assert.Positive(t, r.dropped.Expired)
}

// slowOrder is the task of a client process of slowMembers.
type slowOrder struct {
	Addr               string
	Members, SlowEvery int
}

// slowReport is its report.
type slowReport struct {
	Disorder, Torn int
	Slow           []slowMember
}

// slowMember holds the messages that a member that did not read for long has received in the end.
type slowMember struct {
	Count  int  // messages
	Prefix int  // messages 0, 1, 2, ... without a gap
	Suffix int  // the same from the last one back
	Last   int  // number of the last
	Recent int  // how many of the last slowKeys messages it has
	Ended  bool // the connection has ended

	CloseCode int
	Ordered   bool
}

// slowProcess is a client process as the server's process sees it.
type slowProcess struct {
	in      io.WriteCloser
	answers chan string
	at      atomic.Int64 // messages that every healthy member has
}

// slowClientEnv makes the test binary a client process: it holds a
// slowOrder.
const slowClientEnv = "WS_SCENARIO_SLOW_CLIENT"

func startSlowProcess(t *testing.T, order slowOrder) *slowProcess {
	t.Helper()
	b, err := json.Marshal(order)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestScenarioSlowClientProcess$")
	cmd.Env = append(os.Environ(), slowClientEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	p := &slowProcess{answers: make(chan string, 16)}
	p.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.answers)
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			var n int64
			if _, err := fmt.Sscanf(line, "at %d", &n); err == nil {
				p.at.Store(n)
				continue
			}
			p.answers <- strings.TrimSpace(line)
		}
	}()
	t.Cleanup(func() {
		_ = p.in.Close()
		for line := range p.answers {
			if line != "PASS" {
				t.Log("client process: ", line)
			}
		}
		<-read
		assert.NoError(t, cmd.Wait())
	})
	return p
}

// say sends a command.
func (p *slowProcess) say(command string) { _, _ = fmt.Fprintln(p.in, command) }

// expect waits for an answer that begins with a word, and returns the rest.
func (p *slowProcess) expect(t *testing.T, word string) string {
	t.Helper()
	line := harness.Receive(t, p.answers, word)
	rest, ok := strings.CutPrefix(line, word)
	require.True(t, ok, "client process: %s", line)
	return rest
}

// report waits until all members have the last message and returns their reports.
func (p *slowProcess) report(t *testing.T, messages int) (r slowReport) {
	t.Helper()
	p.say(fmt.Sprint("report ", messages))
	require.NoError(t, json.Unmarshal([]byte(p.expect(t, "report")), &r))
	return r
}

// slowClients is a client process from within.
type slowClients struct {
	t             *testing.T
	healthy, slow []*swarmConn

	// Of the swarm's goroutine, until it is quiet.
	reached  []int   // healthy members that have message n
	logs     [][]int // of the slow
	disorder int
	torn     int

	last []atomic.Int64 // number of the last message of each member; the healthy come first
}

// Not a test of its own: the client process of TestScenarioHeavySlowMembers. It
// opens the connections, says "connected", says "at n" when all healthy members
// have n messages, and obeys the commands of its standard input.
func TestScenarioSlowClientProcess(t *testing.T) {
	env := os.Getenv(slowClientEnv)
	if env == "" {
		t.Skip("run by TestScenarioHeavySlowMembers")
	}
	var order slowOrder
	require.NoError(t, json.Unmarshal([]byte(env), &order))
	raiseLimit(t)
	c := &slowClients{t: t}
	c.dial(order)
	_, _ = fmt.Fprintln(os.Stdout, "connected")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var messages int64
		switch _, err := fmt.Sscanf(in.Text(), "report %d", &messages); {
		case err == nil:
			c.report(messages)
		case in.Text() == "resume":
			for _, conn := range c.slow {
				conn.resume()
			}
		default:
			t.Fatal(in.Text())
		}
	}
}

func (c *slowClients) dial(order slowOrder) {
	swarm := newSwarm(c.t)
	numSlow := order.Members / order.SlowEvery
	numHealthy := order.Members - numSlow
	c.last = make([]atomic.Int64, order.Members)
	c.logs = make([][]int, numSlow)
	for i := range c.last {
		c.last[i].Store(-1)
	}
	for i := range order.Members { // the slow are spread among the healthy
		if i%order.SlowEvery != 0 {
			member := len(c.healthy)
			c.healthy = append(c.healthy, swarm.dial(order.Addr,
				dialOptions{query: queryOf(0, i), onMessage: func(b []byte) {
					c.takeHealthy(&c.last[member], c.number(b), numHealthy)
				}}))
			continue
		}
		member := len(c.slow)
		conn := swarm.dial(order.Addr, dialOptions{
			query: queryOf(slowUser, i), recvBuf: 4096, onMessage: func(b []byte) {
				n := c.number(b)
				c.logs[member] = append(c.logs[member], n)
				c.last[numHealthy+member].Store(int64(n))
			},
		})
		conn.stall()
		c.slow = append(c.slow, conn)
	}
}

// number returns the number of a message, and looks at its shape.
func (c *slowClients) number(b []byte) int {
	n := int(binary.BigEndian.Uint64(b))
	if len(b) != slowSize || b[8] != byte(n) || !bytes.Equal(b[8:len(b)-1], b[9:]) {
		c.torn++
	}
	return n
}

// takeHealthy records message n of a healthy member.
func (c *slowClients) takeHealthy(last *atomic.Int64, n, healthy int) {
	if int64(n) != last.Load()+1 {
		c.disorder++
	}
	last.Store(int64(n))
	for len(c.reached) <= n {
		c.reached = append(c.reached, 0)
	}
	c.reached[n]++
	if c.reached[n] == healthy {
		_, _ = fmt.Fprintln(os.Stdout, "at", n+1)
	}
}

// report waits for the last message, and prints the members' reports.
func (c *slowClients) report(messages int64) {
	for i, conn := range append(append([]*swarmConn(nil), c.healthy...), c.slow...) {
		harness.Eventually(c.t, func() bool { return c.last[i].Load() == messages-1 || conn.over.Load() },
			"the last message of member %d", i)
	}
	r := slowReport{Disorder: c.disorder, Torn: c.torn}
	for i, log := range c.logs {
		m := slowMember{
			Count: len(log), Last: int(c.last[len(c.healthy)+i].Load()), Ordered: true,
			Ended: c.slow[i].over.Load(), CloseCode: int(c.slow[i].closeCode.Load()),
		}
		for k, n := range log {
			if n == k {
				m.Prefix++
			}
			m.Ordered = m.Ordered && (k == 0 || log[k-1] < n)
		}
		for _, n := range log {
			if n >= int(messages)-slowKeys {
				m.Recent++
			}
		}
		for k := len(log) - 1; k >= 0 && log[k] == m.Last-(len(log)-1-k); k-- {
			m.Suffix++
		}
		r.Slow = append(r.Slow, m)
	}
	b, err := json.Marshal(r)
	require.NoError(c.t, err)
	_, _ = fmt.Fprintf(os.Stdout, "report%s\n", b)
}

func TestScenarioHeavyPublishersInATightLoop(t *testing.T) { tightLoop(t, 10*time.Second) }
