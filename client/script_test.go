package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/codec"
)

// script is a file of testdata/scripts; its README.md has the meaning of each field.
type script struct {
	Doc     string        `json:"doc"`
	Options scriptOptions `json:"options"`
	Steps   []step        `json:"steps"`
}

type scriptOptions struct {
	Random          *float64 `json:"random"`
	Queue           *int     `json:"queue"`
	MakeBeforeBreak *bool    `json:"make_before_break"`
}

type step struct {
	Do     input   `json:"do"`
	Expect outputs `json:"expect"`
}

type input struct {
	Connect    bool            `json:"connect"`
	Accept     int             `json:"accept"`
	Fail       int             `json:"fail"`
	Receive    json.RawMessage `json:"receive"`
	Close      *closeFrame     `json:"close"`
	On         int             `json:"on"`
	PassMS     int             `json:"pass_ms"`
	Request    *call           `json:"request"`
	Cancel     string          `json:"cancel"`
	Notify     *call           `json:"notify"`
	Join       *call           `json:"join"`
	Leave      *call           `json:"leave"`
	Ack        *call           `json:"ack"`
	Disconnect bool            `json:"disconnect"`
}

type closeFrame struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// call is a call of the application.
type call struct {
	As         string           `json:"as"`
	Event      string           `json:"event"`
	Data       json.RawMessage  `json:"data"`
	Idempotent bool             `json:"idempotent"`
	TimeoutMS  int              `json:"timeout_ms"`
	Room       string           `json:"room"`
	Since      *client.Position `json:"since"`
	Last       int              `json:"last"`
	Strict     bool             `json:"strict"`
	Device     string           `json:"device"`
	AutoAck    bool             `json:"auto_ack"`
	Presence   bool             `json:"presence"`
	Offset     int64            `json:"offset"`
}

// object is a JSON object.
type object = map[string]any

type outputs struct {
	Dials     []object                   `json:"dials"`
	Frames    []object                   `json:"frames"`
	Closes    []object                   `json:"closes"`
	States    []object                   `json:"states"`
	Messages  []object                   `json:"messages"`
	Results   []object                   `json:"results"`
	Positions map[string]client.Position `json:"positions,omitempty"`
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.json")
	require.NoError(t, err)
	require.Greater(t, len(files), 4)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			var s script
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			require.NoError(t, d.Decode(&s))
			require.NotEmpty(t, s.Doc)
			synctest.Test(t, func(t *testing.T) { play(t, &s) })
		})
	}
}

// stage plays one script. Not safe for concurrent use, as far as nothing else is said.
type stage struct {
	t       *testing.T
	c       *client.Client
	bound   object
	cancels map[string]context.CancelFunc
	list    atomic.Pointer[client.PresenceVersion] // of the last ws.presence

	mu      sync.Mutex
	out     outputs     // guarded by mu
	refresh bool        // of the last attempt, guarded by mu
	dials   []chan bool // guarded by mu; true accepts
	servers map[int]*fakeServer
}

// play runs a script in a bubble, in which time passes in its steps only.
func play(t *testing.T, s *script) {
	st := &stage{
		t: t, bound: make(object), cancels: make(map[string]context.CancelFunc), servers: make(map[int]*fakeServer),
	}
	opts := []client.Option{
		client.WithDialer(st.dial), client.WithPrepare(st.prepare), client.WithOnState(st.onState),
		client.WithHeartbeat(0), client.WithHandshakeTimeout(1000 * time.Hour),
	}
	random := 1.0
	if s.Options.Random != nil {
		random = *s.Options.Random
	}
	opts = append(opts, client.WithRandom(func() float64 { return random }))
	if s.Options.Queue != nil {
		opts = append(opts, client.WithQueueSize(*s.Options.Queue))
	}
	if s.Options.MakeBeforeBreak != nil {
		opts = append(opts, client.WithMakeBeforeBreak(*s.Options.MakeBeforeBreak))
	}
	c, err := client.New("ws://example.com/ws", opts...)
	require.NoError(t, err)
	st.c = c
	st.listen(s)
	for i := range s.Steps {
		st.do(&s.Steps[i].Do)
		synctest.Wait()
		st.compare(i, &s.Steps[i])
	}
	c.Close()
	for _, cancel := range st.cancels {
		cancel()
	}
	st.mu.Lock()
	for _, server := range st.servers {
		_ = server.conn.Close()
	}
	st.mu.Unlock()
	<-c.Done()
}

// listen registers callbacks for all events that the script's server sends.
func (st *stage) listen(s *script) {
	listening := make(map[string]bool)
	for _, step := range s.Steps {
		var m struct{ Type, Event, Room string }
		if step.Do.Receive == nil || json.Unmarshal(step.Do.Receive, &m) != nil || m.Type != "notify" {
			continue
		}
		if key := m.Room + " " + m.Event; listening[key] || m.Event == "ws.gap" || m.Event == "ws.reconnect" {
			continue
		} else {
			listening[key] = true
		}
		if m.Room == "" {
			st.c.On(m.Event, st.onNotify)
		} else {
			st.c.Room(m.Room).On(m.Event, st.onNotify)
		}
	}
	st.c.On("ws.gap", st.onNotify)
	for _, name := range []string{"r1", "r2", "plain", "strict", "@user:42"} {
		room := st.c.Room(name)
		room.OnGap(func(g client.Gap) {
			st.note(&st.out.Messages, object{"gap": object{
				"room": g.Room, "epoch": g.Epoch, "after": g.After, "next": g.Next, "reason": g.Reason,
			}})
		})
		room.OnLost(func(err error) {
			var refused *client.ServerError
			require.ErrorAs(st.t, err, &refused)
			st.note(&st.out.Messages, object{"left": object{"room": name, "code": refused.Code}})
		})
	}
}

// note adds an output. Safe for concurrent use.
func (st *stage) note(list *[]object, o object) {
	st.mu.Lock()
	defer st.mu.Unlock()
	*list = append(*list, o)
}

func (st *stage) onNotify(n client.Notify) {
	if n.Event == "ws.presence" {
		var v client.PresenceVersion
		require.NoError(st.t, json.Unmarshal(n.Data, &v))
		st.list.Store(&v)
	}
	o := object{"event": n.Event}
	if n.Room != "" {
		o["room"] = n.Room
	}
	if n.Position.Offset > 0 {
		o["offset"] = n.Position.Offset
	}
	if n.Data != nil {
		o["data"] = n.Data
	}
	st.note(&st.out.Messages, o)
}

func (st *stage) onState(s client.State) {
	o := object{"state": s.Phase.String()}
	switch s.Phase {
	case client.Waiting:
		o["retry_in_ms"] = time.Until(s.RetryAt).Milliseconds()
	case client.Closed:
		o["code"] = 1000
		if closed, ok := errors.AsType[*client.CloseError](s.Err); ok {
			o["code"] = closed.Code
			if closed.Reason != "" {
				o["reason"] = closed.Reason
			}
		}
	}
	st.note(&st.out.States, o)
}

func (st *stage) prepare(_ context.Context, a *client.Attempt) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.refresh = a.Refresh
	return nil
}

// dial waits until a step accepts or refuses the connection.
func (st *stage) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	decided := make(chan bool, 1)
	st.mu.Lock()
	st.dials = append(st.dials, decided)
	number := len(st.dials)
	o := object{"dial": number}
	if st.refresh {
		o["refresh"] = true
	}
	st.out.Dials = append(st.out.Dials, o)
	st.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case ok := <-decided:
		if !ok {
			return nil, errors.New("no route to the server")
		}
	}
	near, far := net.Pipe()
	server := &fakeServer{st: st, number: number, conn: far}
	st.mu.Lock()
	st.servers[number] = server
	st.mu.Unlock()
	go server.run()
	return near, nil
}

// do gives the client an input.
func (st *stage) do(in *input) {
	switch {
	case in.Connect:
		go func() { _ = st.c.Connect(context.Background()) }()
	case in.Accept > 0:
		st.dials[in.Accept-1] <- true
	case in.Fail > 0:
		st.dials[in.Fail-1] <- false
	case in.Receive != nil:
		st.servers[in.On].send(codec.OpText, st.filled(in.Receive))
	case in.Close != nil:
		st.servers[in.On].close(in.Close)
	case in.PassMS > 0:
		<-time.After(time.Duration(in.PassMS) * time.Millisecond)
	case in.Cancel != "":
		st.cancels[in.Cancel]()
	case in.Disconnect:
		st.c.Close()
	default:
		st.call(in)
	}
}

// filled returns a message with the values of its names.
func (st *stage) filled(message []byte) []byte {
	for name, value := range st.bound {
		message = bytes.ReplaceAll(message, []byte(`"`+name+`"`), fmt.Appendf(nil, "%q", value))
	}
	return message
}

// compare asserts that the outputs are those that the script expects.
func (st *stage) compare(i int, s *step) {
	st.mu.Lock()
	defer st.mu.Unlock()
	at := fmt.Sprintf("step %d: %+v", i+1, s.Do)
	got := st.out
	st.out = outputs{}
	slices.SortStableFunc(got.Frames, func(a, b object) int { return a["on"].(int) - b["on"].(int) })
	require.Equal(st.t, len(s.Expect.Frames), len(got.Frames), "%s: frames %v", at, got.Frames)
	for j, want := range s.Expect.Frames {
		st.bind(want, got.Frames[j])
	}
	byName := func(a, b object) int { return strings.Compare(a["of"].(string), b["of"].(string)) }
	slices.SortFunc(got.Results, byName)
	slices.SortFunc(s.Expect.Results, byName)
	got.Positions = make(map[string]client.Position)
	for room := range s.Expect.Positions {
		got.Positions[room] = st.c.Room(room).Position()
	}
	require.JSONEq(st.t, string(encode(st.t, s.Expect)), string(encode(st.t, got)), at)
}

// bind gives a new name of the expected frame its value, and replaces the names by their values.
func (st *stage) bind(want, got object) {
	frame := want["frame"].(object)
	id, ok := frame["request_id"].(string)
	if !ok || !strings.HasPrefix(id, "$") {
		return
	}
	if st.bound[id] == nil {
		st.bound[id] = got["frame"].(object)["request_id"]
	}
	frame["request_id"] = st.bound[id]
}

func encode(t *testing.T, v any) []byte {
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return text
}

// fakeServer is the server's end of a connection.
type fakeServer struct {
	st     *stage
	number int
	conn   net.Conn
	closed bool // guarded by stage.mu
}

// run answers the handshake and notes the client's frames.
func (f *fakeServer) run() {
	in := bufio.NewReader(f.conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	_, _ = f.conn.Write(codec.AppendAccept(nil, r, codec.Accept{}))
	var d codec.Decoder
	defer d.Release()
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		b, _ := in.Peek(in.Buffered())
		for rest := b; len(rest) > 0; {
			n, m, ok, err := d.Next(rest, 0)
			if err != nil {
				return
			}
			rest = rest[n:]
			if ok && !f.take(m) {
				_ = f.conn.Close()
				return
			}
		}
		_, _ = in.Discard(len(b))
	}
}

// take notes a frame, and reports whether the connection goes on.
func (f *fakeServer) take(m codec.Message) bool {
	switch m.Op {
	case codec.OpText:
		frame := make(object)
		_ = json.Unmarshal(m.Payload, &frame)
		delete(frame, "timestamp")
		f.st.note(&f.st.out.Frames, object{"on": f.number, "frame": frame})
	case codec.OpPing:
		f.send(codec.OpPong, m.Payload)
	case codec.OpClose:
		f.st.mu.Lock()
		answered := f.closed
		f.st.mu.Unlock()
		if !answered {
			code, _, _ := codec.ParseClose(m.Payload)
			f.st.note(&f.st.out.Closes, object{"on": f.number, "code": int(code)})
			f.send(codec.OpClose, m.Payload)
		}
		return false
	}
	return true
}

func (f *fakeServer) send(op codec.Opcode, payload []byte) {
	_, _ = f.conn.Write(codec.AppendFrame(nil, op, payload))
}

func (f *fakeServer) close(c *closeFrame) {
	f.st.mu.Lock()
	f.closed = true
	f.st.mu.Unlock()
	if c.Code == int(codec.CloseAbnormal) {
		_ = f.conn.Close()
		return
	}
	_, _ = f.conn.Write(codec.AppendClose(nil, codec.CloseCode(c.Code), c.Reason))
}
