//go:build linux

package integration_test

import (
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// soon is harness.Eventually for goroutines other than the test's: it reports whether the condition
// holds in time, and marks the test as failed if not.
func soon(t testing.TB, condition func() bool, format string, args ...any) bool {
	deadline := time.Now().Add(harness.Patience)
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

// confirms is the publisher's number in a stamp that confirms all
// before it.
const confirms = math.MaxUint32

// witness is a client that reads at all times.
type witness struct {
	*swarmConn
	side  *ws.Client
	heard atomic.Int64 // number of the last stamp of confirms
}

// witnesses opens one connection on each event loop.
func witnesses(s *harness.Server, swarm *clientSwarm) []*witness {
	s.T.Helper()
	found := make([]*witness, len(s.Stats().Loops))
	for try := 0; slices.Contains(found, nil); try++ {
		before := s.Stats()
		w := new(witness)
		query := queryOf(0, -1-try)
		w.swarmConn = swarm.dial(s.AddrOf(harness.Native), dialOptions{query: query, onMessage: func(b []byte) {
			if len(b) >= 8 && binary.BigEndian.Uint32(b) == confirms {
				w.heard.Store(int64(binary.BigEndian.Uint32(b[4:])))
			}
		}})
		w.side = serverSide(s, query)
		after := s.Stats()
		loop := slices.IndexFunc(found, func(w *witness) bool { return w == nil })
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

// hear sends the witness a message and waits until it has come: its loop has then written, or tried
// to, all messages that were posted to it before.
func (w *witness) hear(t testing.TB) bool {
	next := w.heard.Load() + 1
	publish(t, func() error { return w.side.SendBytes(stamp(confirms, uint32(next))) })
	return soon(t, func() bool { return w.heard.Load() == next }, "the witness heard nothing")
}

// echo sends a message from the witness and waits until it has come back, from
// a server that echoes.
func (w *witness) echo(t testing.TB) bool {
	next := w.heard.Load() + 1
	return assert.NoError(t, w.send(gobwas.OpBinary, stamp(confirms, uint32(next)))) &&
		soon(t, func() bool { return w.heard.Load() == next }, "the witness is not served")
}
