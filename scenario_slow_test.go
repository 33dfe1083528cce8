//go:build linux

package ws_test

import (
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
)

// stall makes the client stop reading: the swarm does not look at its socket
// any more, until resume.
func (c *scenarioConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, unix.EpollCtl(c.swarm.epfd, unix.EPOLL_CTL_DEL, c.fd, nil))
	}
}

// resume makes the client read again.
func (c *scenarioConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, c.swarm.watch(c.fd))
	}
}

// watch puts a socket into the swarm's epoll.
func (s *scenarioSwarm) watch(fd int) error {
	return unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)})
}

// scenarioSoon is scenarioUntil for goroutines other than the test's: it
// reports whether the condition holds in time, and marks the test as failed if
// not. Its patience is shorter than that of who waits for the goroutine.
func scenarioSoon(t testing.TB, condition func() bool, format string, args ...any) bool {
	deadline := time.Now().Add(scenarioPatience / 2)
	poll := time.NewTicker(100 * time.Microsecond)
	defer poll.Stop()
	for ; !condition(); <-poll.C {
		if t.Failed() {
			return false
		}
		if time.Now().After(deadline) {
			return assert.Fail(t, "condition never held", append([]any{format}, args...)...)
		}
	}
	return true
}

// scenarioConfirms is the publisher's number in a stamp that confirms all
// before it.
const scenarioConfirms = math.MaxUint32

// scenarioWitness is a client that reads at all times.
type scenarioWitness struct {
	*scenarioConn
	side  *ws.Client
	heard atomic.Int64 // number of the last stamp of scenarioConfirms
}

// witnesses opens one connection on each event loop.
func (s *scenarioServer) witnesses(swarm *scenarioSwarm) []*scenarioWitness {
	s.t.Helper()
	found := make([]*scenarioWitness, len(s.Stats().Loops))
	for try := 0; slices.Contains(found, nil); try++ {
		before := s.Stats()
		w := new(scenarioWitness)
		query := scenarioQuery(0, -1-try)
		w.scenarioConn = swarm.dial(s.addr[scenarioNative], scenarioDial{query: query, onMessage: func(b []byte) {
			if len(b) >= 8 && binary.BigEndian.Uint32(b) == scenarioConfirms {
				w.heard.Store(int64(binary.BigEndian.Uint32(b[4:])))
			}
		}})
		w.side = s.serverSide(query)
		after := s.Stats()
		loop := slices.IndexFunc(found, func(w *scenarioWitness) bool { return w == nil })
		for i := range found {
			if after.Loops[i].Opened > before.Loops[i].Opened {
				loop = i
			}
		}
		if found[loop] != nil {
			w.hangUp()
			continue
		}
		found[loop] = w
	}
	return found
}

// hear sends the witness a message and waits until it has come: its loop has
// then written, or tried to, what was posted to it before.
func (w *scenarioWitness) hear(t testing.TB) bool {
	next := w.heard.Load() + 1
	scenarioPublish(t, func() error { return w.side.SendBytes(scenarioStamp(scenarioConfirms, uint32(next))) })
	return scenarioSoon(t, func() bool { return w.heard.Load() == next }, "the witness heard nothing")
}
