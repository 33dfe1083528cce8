package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/control"
)

// TestMain is also the server process of the tests.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a server process.
type process struct {
	t   *testing.T
	in  io.WriteCloser
	out *json.Decoder
	control.Report
}

func startProcess(t *testing.T, library string, cfg control.Config) *process {
	t.Helper()
	arg, err := json.Marshal(cfg)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "serve", library, string(arg))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{t: t, in: in, out: json.NewDecoder(out)}
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		assert.NoError(t, cmd.Wait())
	})
	require.NoError(t, p.out.Decode(&p.Report))
	return p
}

func (p *process) call(c control.Command) (r control.Report) {
	p.t.Helper()
	require.NoError(p.t, json.NewEncoder(p.in).Encode(c))
	require.NoError(p.t, p.out.Decode(&r))
	require.Empty(p.t, r.Error)
	return r
}

// eventually waits until the server's report is as it should be.
func (p *process) eventually(what string, cond func(r *control.Report) bool) {
	p.t.Helper()
	var r control.Report
	require.Eventually(p.t, func() bool {
		r = p.call(control.Command{Name: "report"})
		return cond(&r)
	}, time.Minute, 5*time.Millisecond, "%s: %+v", what, &r)
}

func (p *process) dial(n int) []*websocket.Conn {
	p.t.Helper()
	// The servers on gobwas/ws take no fragments; gorilla sends none from a
	// large buffer.
	dialer := websocket.Dialer{WriteBufferSize: 128 << 10}
	conns := make([]*websocket.Conn, n)
	for i := range conns {
		c, resp, err := dialer.DialContext(p.t.Context(), "ws://"+p.Native+"/ws", nil)
		require.NoError(p.t, err)
		require.NoError(p.t, resp.Body.Close())
		require.NoError(p.t, c.SetReadDeadline(time.Now().Add(2*time.Minute)))
		p.t.Cleanup(func() { _ = c.Close() })
		conns[i] = c
	}
	return conns
}

const conns = 50

// each runs a test with each library.
func each(t *testing.T, f func(t *testing.T, library string)) {
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			f(t, l.name)
		})
	}
}

// TestEcho has many messages of each connection under way, small ones and such
// as no buffer holds.
func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, library string) {
		p := startProcess(t, library, control.Config{Mode: control.Echo})
		cs := p.dial(conns)
		p.eventually("connected", func(r *control.Report) bool { return r.Clients == conns })
		messages := make([][]byte, 0, 16)
		for i, size := range []int{16, 125, 126, 512, 4096, 70_000, 17, 512, 512, 512, 512, 512, 16, 16, 16, 16} {
			messages = append(messages, bytes.Repeat([]byte{byte(i + 1)}, size))
		}
		for _, c := range cs {
			for _, m := range messages {
				require.NoError(t, c.WriteMessage(websocket.BinaryMessage, m))
			}
		}
		for _, c := range cs {
			for i, want := range messages {
				typ, got, err := c.ReadMessage()
				require.NoError(t, err, "message %d", i)
				require.Equal(t, websocket.BinaryMessage, typ)
				require.True(t, bytes.Equal(want, got), "message %d of %d bytes: got %d", i, len(want), len(got))
			}
		}
	})
}

// TestRooms publishes to two rooms in turn: each member gets its room's
// messages, all of them, in order, until it leaves.
func TestRooms(t *testing.T) {
	each(t, func(t *testing.T, library string) {
		p := startProcess(t, library, control.Config{})
		assert.Contains(t, p.Library, library+" v")
		cs := p.dial(conns)
		for i, c := range cs {
			join := binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, uint32(i%2))
			for range 2 { // the second time it is in already
				require.NoError(t, c.WriteMessage(websocket.BinaryMessage, join))
			}
		}
		p.eventually("joined", func(r *control.Report) bool { return r.Members == conns && r.Clients == conns })
		p.call(control.Command{Name: "publish", Size: 600, Rooms: 2, Rate: 400})
		for i, c := range cs {
			for seq := range uint64(25) {
				typ, got, err := c.ReadMessage()
				require.NoError(t, err, "connection %d, message %d", i, seq)
				require.Equal(t, websocket.BinaryMessage, typ)
				require.Len(t, got, 600)
				require.Equal(t, seq, binary.LittleEndian.Uint64(got), "connection %d", i)
			}
		}
		echo := append([]byte{control.EchoByte}, strconv.Itoa(conns)...)
		stopped := p.call(control.Command{Name: "stop"})
		assert.GreaterOrEqual(t, stopped.Published, uint64(50))
		require.NoError(t, cs[0].WriteMessage(websocket.BinaryMessage, echo))
		for {
			_, got, err := cs[0].ReadMessage()
			require.NoError(t, err)
			if bytes.Equal(got, echo) {
				break
			}
			require.Len(t, got, 600)
		}
		for _, c := range cs[:20] {
			require.NoError(t, c.Close())
		}
		p.eventually("left", func(r *control.Report) bool { return r.Members == conns-20 && r.Clients == conns-20 })
		assert.Zero(t, p.call(control.Command{Name: "report"}).Dropped)
	})
}

// TestPublishOfClient has a client that is no member publish to two rooms in turn: each
// member gets its room's messages in order, with their time.
func TestPublishOfClient(t *testing.T) {
	each(t, func(t *testing.T, library string) {
		p := startProcess(t, library, control.Config{})
		cs := p.dial(7)
		members, client := cs[:6], cs[6]
		for i, c := range members {
			join := binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, uint32(i%2))
			require.NoError(t, c.WriteMessage(websocket.BinaryMessage, join))
		}
		p.eventually("joined", func(r *control.Report) bool { return r.Members == len(members) })
		const rounds = 20
		for due := range uint64(2 * rounds) {
			message := binary.LittleEndian.AppendUint32([]byte{control.PublishByte}, uint32(due%2))
			message = binary.LittleEndian.AppendUint64(message, 0)
			message = binary.LittleEndian.AppendUint64(message, due)
			require.NoError(t, client.WriteMessage(websocket.BinaryMessage, append(message, make([]byte, 600)...)))
		}
		for i, c := range members {
			for seq := range uint64(rounds) {
				_, got, err := c.ReadMessage()
				require.NoError(t, err, "member %d, message %d", i, seq)
				require.Len(t, got, control.StampBytes+600)
				require.Equal(t, seq, binary.LittleEndian.Uint64(got), "member %d", i)
				require.Equal(t, 2*seq+uint64(i%2), binary.LittleEndian.Uint64(got[8:]), "member %d", i)
			}
		}
		p.eventually("published", func(r *control.Report) bool { return r.Published == 2*rounds })
	})
}

func TestJSON(t *testing.T) {
	p := startProcess(t, "gorilla", control.Config{Mode: control.JSON})
	c := p.dial(1)[0]
	for seq := range 3 {
		id := "r" + strconv.Itoa(seq)
		require.NoError(t, c.WriteJSON(map[string]any{
			"type": "request", "event": "echo", "request_id": id,
			"data": map[string]any{"seq": seq, "sent": 1234567890123456789, "pad": "xx"},
		}))
		typ, got, err := c.ReadMessage()
		require.NoError(t, err)
		assert.Equal(t, websocket.TextMessage, typ)
		var r response[control.EchoData]
		require.NoError(t, json.Unmarshal(got, &r))
		assert.Equal(t, response[control.EchoData]{
			Type: "response", RequestID: id, Code: 200, Message: "success",
			Data: control.EchoData{Seq: uint64(seq), Sent: 1234567890123456789, Pad: "xx"}, Timestamp: r.Timestamp,
		}, r)
		assert.Positive(t, r.Timestamp)
	}
	require.NoError(t, c.WriteJSON(map[string]any{"type": "request", "event": "dance", "request_id": "r"}))
	var r response[control.EchoData]
	require.NoError(t, c.ReadJSON(&r))
	assert.Equal(t, 404, r.Code)
}

// TestOverflow has a member that does not read: a library with a bound says how
// many messages it dropped, or closes the connection.
func TestOverflow(t *testing.T) {
	each(t, func(t *testing.T, library string) {
		p := startProcess(t, library, control.Config{Queue: 4})
		c := p.dial(1)[0]
		require.NoError(t, c.WriteMessage(websocket.BinaryMessage, []byte{control.JoinByte}))
		p.eventually("joined", func(r *control.Report) bool { return r.Members == 1 })
		unbounded := library == "gws" || library == "nbio" || library == "greatws"
		r := p.call(control.Command{Name: "fill", Size: 1 << 20, Count: 30})
		assert.EqualValues(t, 30, r.Published)
		if unbounded {
			assert.Zero(t, r.Dropped)
			return
		}
		p.eventually("dropped", func(r *control.Report) bool { return r.Dropped > 0 })
	})
}

// TestNoop asserts that gws answers pipelined requests in order, as the library
// under test does.
func TestNoop(t *testing.T) {
	p := startProcess(t, "gws", control.Config{Mode: control.Noop, HandlerTime: time.Microsecond})
	c := p.dial(1)[0]
	for seq := range 50 {
		require.NoError(t, c.WriteJSON(map[string]any{
			"type": "request", "event": "noop", "request_id": strconv.Itoa(seq), "data": map[string]any{"pad": "xx"},
		}))
	}
	for seq := range 50 {
		var r response[control.NoopAnswer]
		require.NoError(t, c.ReadJSON(&r))
		assert.Equal(t, response[control.NoopAnswer]{
			Type: "response", RequestID: strconv.Itoa(seq), Code: 200, Message: "success", Timestamp: r.Timestamp,
		}, r)
	}
}

func TestArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"none":            {},
		"no such library": {"serve", "frobnicate", "{}"},
		"no JSON":         {"serve", "gorilla", "{"},
		"no JSON mode":    {"serve", "gws", `{"Mode":"json"}`},
		"compression":     {"serve", "gws", `{"Compress":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, run(args, bytes.NewReader(nil), io.Discard))
		})
	}
	var out bytes.Buffer
	require.NoError(t, run([]string{"list"}, nil, &out))
	assert.Equal(t, len(libraries), bytes.Count(out.Bytes(), []byte("\n")))
}
