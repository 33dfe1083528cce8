package engine_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// A handler holds the loop of a busy server for longer than a timeout of other
// connections, whose peers were in time. The loop reads the bytes that wait in
// the kernel before it acts on the deadlines, and decides on requests under a
// context that has not ended.
func TestDeadlinesWaitForUnreadBytes(t *testing.T) {
	for name, offLoop := range map[string]bool{"decided on the loop": false, "decided on a worker": true} {
		t.Run(name, func(t *testing.T) { testLateLoop(t, offLoop) })
	}
}

func testLateLoop(t *testing.T, offLoop bool) {
	const timeout = 3 * time.Second
	held, release := make(chan struct{}), make(chan struct{})
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.Loops, cfg.HandshakeTimeout, cfg.CloseTimeout = 1, timeout, timeout
		s.onMessage = func(*peer, codec.Opcode, []byte) { close(held); <-release }
		s.offLoop = offLoop
		s.admit = func(r *http.Request) ([]byte, bool) {
			if err := r.Context().Err(); err != nil {
				return codec.AppendRefusal(nil, 500, err.Error(), nil), false
			}
			return codec.AppendAccept(nil, r, codec.Accept{}), true
		}
	})
	s.keepBusy()
	holder := s.dial()
	closing := s.dial()
	s.peer(1).conn.Close(codec.CloseNormal, "")
	require.Equal(t, gobwas.OpClose, closing.read().Header.OpCode)
	newcomer := s.dialTCP()
	newcomer.raw(upgradeRequest[:20])
	s.eventually(func() bool { return s.Shards()[0].Connections() == 3 }, "not accepted")
	holder.send("hold the loop")
	<-held
	<-time.After(timeout / 2) // the loop's timers are due before these bytes
	newcomer.raw(upgradeRequest[20:])
	closing.raw(frame(gobwas.OpClose, string(gobwas.NewCloseFrameBody(gobwas.StatusNormalClosure, ""))))
	<-time.After(timeout) // beyond both deadlines
	close(release)
	assert.Equal(t, http.StatusSwitchingProtocols, newcomer.response())
	_, err := io.Copy(io.Discard, closing.r)
	assert.NoError(t, err, "the connection was reset")
}

// The sender of an answer for a client of a held loop with a full ring does not
// wait.
func TestSendAnswerToAHeldLoop(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.BroadcastQueueSize, cfg.BroadcastTimeout = 1, 4, time.Hour
	})
	c := s.dial()
	conn, sh := &s.peer(0).conn, s.Shards()[0]
	held, release := make(chan struct{}), make(chan struct{})
	sh.Post(taskFunc(func(*engine.Shard) { close(held); <-release }))
	<-held
	for range 2 * 4 {
		sh.Post(taskFunc(func(*engine.Shard) {}))
	}
	sent := make(chan error)
	go func() { sent <- conn.SendAnswer(codec.OpText, []byte("answer")) }()
	select {
	case err := <-sent:
		assert.NoError(t, err)
	case <-time.After(patience):
		t.Error("the sender waits for the loop")
		defer func() { <-sent }()
	}
	close(release)
	c.expect("answer")
}

// keepBusy makes each turn of the first loop use all its time, until the end of
// the test.
func (s *server) keepBusy() {
	var over atomic.Bool
	var spin taskFunc
	spin = func(sh *engine.Shard) {
		for !sh.OutOfTimeInLoop() {
			sh.NoteWorkInLoop(1 << 10)
		}
		if !over.Load() {
			sh.Post(spin)
		}
	}
	s.Shards()[0].Post(spin)
	s.t.Cleanup(func() { over.Store(true) })
}
