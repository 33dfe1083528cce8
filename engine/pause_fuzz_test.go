package engine_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// FuzzPause sends one stream of frames twice, cut into the same reads: to an
// owner that never pauses, and to one that pauses at random messages while the
// peer stalls now and then. Both owners must get the same messages, both peers
// the same answers, and both connections must end alike.
func FuzzPause(f *testing.F) {
	p := startPausing(f)
	addPauseSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte, seed uint64, compressed bool) {
		stream := pauseStream(b[:min(len(b), 4096)], seed, compressed)
		p.srv.deflate = nil
		if compressed {
			p.srv.deflate = new(codec.Deflate)
		}
		reads := cutAtRandom(stream, seed)
		want := p.run(t, reads, nil, nil)
		got := p.run(t, reads, rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed, 3)))
		require.False(t, got.broken, "a message was handed over while the connection was paused")
		if compressed && want.end.Err != nil {
			// An unfinished compressed text is checked once in each read, and a
			// pause joins reads, so it decides which of several errors comes
			// first.
			require.Error(t, got.end.Err)
			want.end, got.end, want.answers, got.answers = engine.CloseInfo{}, engine.CloseInfo{}, nil, nil
		}
		require.Equal(t, want, got)
	})
}

// pausing is a server on a simulated network whose owners pause according to a
// pauseRun.
type pausing struct {
	*engine.Simnet
	srv     *server
	current *pauseRun // of the open connection
}

// pauseRun is one connection with its outcome.
type pauseRun struct {
	r      *rand.Rand // decides when the owner pauses; nil is never. Loop-confined
	paused atomic.Bool

	pauseOutcome
}

// pauseOutcome is the outcome as owner and peer have seen it.
type pauseOutcome struct {
	messages []string
	answers  []string // data frames and the close frame
	end      engine.CloseInfo
	broken   bool
}

func startPausing(f *testing.F) *pausing {
	p := &pausing{Simnet: engine.NewSimnet()}
	p.OnFrame = func(_ int, frame []byte) {
		if op := codec.Opcode(frame[0] & 0xf); op != codec.OpPong {
			p.current.answers = append(p.current.answers, string(frame))
		}
	}
	p.srv = start(f, func(cfg *engine.Config, s *server) {
		cfg.ListenAddr, cfg.Simnet, cfg.Loops = "", p.Simnet, 1
		cfg.MessageSizeLimit, cfg.MessageQueueSize, cfg.QueueBytes = 2000, 8, 4096
		cfg.ControlFrameLimit = 200
		s.onMessage = p.onMessage
	})
	return p
}

// onMessage answers, and pauses at random.
func (p *pausing) onMessage(o *peer, op codec.Opcode, payload []byte) {
	run := p.current
	run.broken = run.broken || run.paused.Load()
	run.messages = append(run.messages, fmt.Sprintf("%d %q", op, payload))
	_ = o.conn.SendAnswer(op, payload)
	if run.r == nil || run.r.IntN(3) > 0 {
		return
	}
	run.paused.Store(true)
	o.conn.PauseInLoop()
	if run.r.IntN(3) == 0 {
		run.resume(o)
	}
}

// resume resumes the connection if its owner has paused it.
func (run *pauseRun) resume(o *peer) {
	if run.paused.Swap(false) {
		o.conn.Resume()
	}
}

// run sends reads on a new connection. owner decides when its owner pauses, and
// peer when it resumes and the peer stalls; nil is never.
func (p *pausing) run(t *testing.T, reads [][]byte, owner, peer *rand.Rand) pauseOutcome {
	run := &pauseRun{r: owner}
	p.current = run
	p.srv.peers = nil
	n := p.Connect(1, []byte(upgradeRequest))
	p.Wait()
	require.Len(t, p.srv.peers, 1)
	o := p.srv.peers[0]
	for _, b := range reads {
		p.Send(n, b)
		if peer != nil {
			p.disturb(n, o, peer)
		}
	}
	p.Resume(n)
	for i := 0; ; i++ {
		p.Wait()
		if !run.paused.Load() {
			break
		}
		require.Less(t, i, 10_000, "the connection is paused again and again")
		run.resume(o)
	}
	require.Zero(t, p.srv.Shards()[0].Stats().Paused, "the connection is resumed")
	require.Zero(t, p.srv.Shards()[0].Stats().HeldBytes, "nothing is held")
	p.HangUp(n)
	p.Wait()
	require.Zero(t, p.srv.Shards()[0].Connections())
	run.end = <-o.ends
	return run.pauseOutcome
}

// disturb resumes or stalls at random between two reads.
func (p *pausing) disturb(n int, o *peer, r *rand.Rand) {
	if r.IntN(2) == 0 {
		p.Wait()
	}
	switch r.IntN(8) {
	case 0, 1, 2:
		p.current.resume(o)
	case 3:
		p.Stall(n)
	case 4:
		p.Resume(n)
	}
}

// pauseStream turns fuzzer input into frames, most of them valid.
func pauseStream(b []byte, seed uint64, compressed bool) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	ops := []gobwas.OpCode{
		gobwas.OpText, gobwas.OpBinary, gobwas.OpText, gobwas.OpBinary,
		gobwas.OpPing, gobwas.OpPong, gobwas.OpText, gobwas.OpClose,
	}
	var stream bytes.Buffer
	open := false // within a message
	for len(b) > 0 {
		n := min(int(b[0]&31), len(b)-1)
		op, payload := ops[b[0]>>5], b[1:1+n]
		b = b[1+n:]
		switch {
		case op == gobwas.OpClose && r.IntN(8) > 0:
			op = gobwas.OpBinary
		case op == gobwas.OpClose && r.IntN(4) > 0:
			payload = append(binary.BigEndian.AppendUint16(nil, uint16(1000+r.IntN(20))), payload...)
		}
		h := gobwas.Header{Fin: op.IsControl() || r.IntN(4) > 0, OpCode: op}
		if !op.IsControl() {
			payload = pausePayload(r, op, payload)
			if open {
				h.OpCode = gobwas.OpContinuation
			} else if compressed && r.IntN(2) == 0 {
				h.Rsv, payload = gobwas.Rsv(true, false, false), deflated(payload)
				h.Fin = true
			}
			open = !h.Fin
		}
		if h.Rsv == 0 && r.IntN(60) == 0 {
			h.Rsv = byte(r.IntN(8))
		}
		h.Length = int64(len(payload))
		if err := gobwas.WriteFrame(&stream, gobwas.MaskFrame(gobwas.Frame{Header: h, Payload: payload})); err != nil {
			panic(err)
		}
	}
	return stream.Bytes()
}

// pausePayload makes a payload longer, and valid UTF-8 for most texts.
func pausePayload(r *rand.Rand, op gobwas.OpCode, payload []byte) []byte {
	payload = bytes.Repeat(payload, 1+r.IntN(3)*r.IntN(8))
	if op == gobwas.OpText && r.IntN(20) > 0 {
		payload = bytes.ToValidUTF8(payload, []byte("é"))
	}
	return payload
}

// deflated returns payload in the form of permessage-deflate (RFC 7692 section
// 7.2.1).
func deflated(payload []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(payload)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// cutAtRandom cuts a stream into reads.
func cutAtRandom(stream []byte, seed uint64) (reads [][]byte) {
	r := rand.New(rand.NewPCG(seed, 4))
	longest := []int{3, 40, 400, 1 << 20}[seed%4]
	for len(stream) > 0 {
		n := min(1+r.IntN(longest), len(stream))
		reads, stream = append(reads, stream[:n]), stream[n:]
	}
	return reads
}

// addPauseSeeds adds streams of all opcodes, in reads of all lengths.
func addPauseSeeds(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 5))
	for seed := range uint64(24) {
		b := make([]byte, 1+r.IntN(1200))
		for i := range b {
			b[i] = byte(r.IntN(224)) // few ends
		}
		f.Add(b, seed, seed/4%2 == 1)
	}
	f.Add([]byte("\x03one\x23two\x83png\x03thr\xe2ab"), uint64(7), false)
}
