package control_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/control"
)

func TestNow(t *testing.T) {
	a := control.Now()
	<-time.After(time.Millisecond) // the test measures time itself
	assert.GreaterOrEqual(t, control.Now()-a, int64(time.Millisecond))
}

// server notes the published messages, and refuses every third one once.
type server struct {
	mu    sync.Mutex
	calls int
	seqs  map[int][]uint64
}

func (s *server) Publish(room int, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls%3 == 0 {
		return errors.New("full")
	}
	s.seqs[room] = append(s.seqs[room], binary.LittleEndian.Uint64(payload))
	return nil
}

func (s *server) Report(r *control.Report) { r.Clients = 7 }

// TestHost drives a host through its commands: each room's messages are
// numbered from 0, and refused messages are published again.
func TestHost(t *testing.T) {
	var h control.Host
	s := &server{seqs: map[int][]uint64{}}
	in, commands := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Serve(s, &control.Report{Native: "here"}, in, out) }()
	read := json.NewDecoder(answers)
	report := func() (r control.Report) {
		require.NoError(t, read.Decode(&r))
		return r
	}
	call := func(c control.Command) control.Report {
		require.NoError(t, json.NewEncoder(commands).Encode(c))
		return report()
	}
	assert.Equal(t, "here", report().Native)
	call(control.Command{Name: "publish", Size: 16, Rooms: 3, Rate: 10_000})
	var published uint64
	for published < 30 {
		r := call(control.Command{Name: "report"})
		published = r.Published
		assert.Equal(t, 7, r.Clients)
		assert.Positive(t, r.RSS)
	}
	r := call(control.Command{Name: "stop"})
	assert.Positive(t, r.PublishErrors)
	assert.NotEmpty(t, call(control.Command{Name: "shutdown"}).Error, "the server has none")
	assert.NotEmpty(t, call(control.Command{Name: "dance"}).Error)
	require.NoError(t, commands.Close())
	require.NoError(t, <-done)
	total := 0
	for room, seqs := range s.seqs {
		total += len(seqs)
		for i, seq := range seqs {
			require.EqualValues(t, i, seq, "room %d", room)
		}
	}
	assert.Len(t, s.seqs, 3)
	assert.EqualValues(t, r.Published, total)
}
