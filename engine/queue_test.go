package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/engine"
)

// written is what writev would send.
func written(iov []unix.Iovec) []byte {
	var b []byte
	for _, v := range iov {
		b = append(b, unsafe.Slice(v.Base, v.Len)...)
	}
	return b
}

func TestQueueLanesOvertakeButNeverWithinAFrame(t *testing.T) {
	var q engine.Queue
	q.Push(engine.RawFrame([]byte("normal-1 ")), engine.LaneNormal)
	q.Push(engine.RawFrame([]byte("normal-2 ")), engine.LaneNormal)
	frames, n := q.Advance(3) // "normal-1 " is half sent
	assert.Zero(t, frames+n)
	q.Push(engine.RawFrame([]byte("high ")), engine.LaneHigh)
	q.Push(engine.ExemptFrame([]byte("ping ")), engine.LaneControl)
	iov, total := q.Gather(make([]unix.Iovec, 0, 16), 1<<20)
	assert.Equal(t, "mal-1 ping high normal-2 ", string(written(iov)))
	assert.Equal(t, 25, total)
	frames, n = q.Advance(total)
	assert.Equal(t, 3, frames, "control frames do not count")
	assert.Equal(t, len("normal-1 ")+len("high ")+len("normal-2 "), n)
	assert.True(t, q.Empty())
}

func TestQueueGatherIsBounded(t *testing.T) {
	var q engine.Queue
	for i := range 100 {
		q.Push(engine.RawFrame(fmt.Appendf(nil, "%04d", i)), engine.LaneNormal)
	}
	iov, total := q.Gather(make([]unix.Iovec, 0, 10), 1<<20)
	assert.Len(t, iov, 10)
	assert.Equal(t, 40, total)
	iov, total = q.Gather(make([]unix.Iovec, 0, 100), 25)
	assert.Len(t, iov, 7, "the frame that reaches the bound is the last")
	assert.Equal(t, 28, total)
}

// TestQueueAgainstAByteStream pushes and sends at random: what is sent is made
// of whole frames, each lane in its order, and the counts agree.
func TestQueueAgainstAByteStream(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var q engine.Queue
	var sent []byte
	var pushed [3]int // next number of each lane
	frames, size := 0, 0
	for range 20_000 {
		if rng.IntN(3) > 0 {
			lane := engine.Lane(rng.IntN(3))
			f := fmt.Appendf(nil, "<%d:%06d:%s>", lane, pushed[lane], bytes.Repeat([]byte("x"), rng.IntN(30)))
			pushed[lane]++
			if lane == engine.LaneControl {
				q.Push(engine.ExemptFrame(f), lane)
			} else {
				q.Push(engine.RawFrame(f), lane)
				frames++
				size += len(f)
			}
			continue
		}
		iov, total := q.Gather(make([]unix.Iovec, 0, 1+rng.IntN(64)), 1+rng.IntN(2000))
		n := rng.IntN(total + 1)
		sent = append(sent, written(iov)[:n]...)
		f, b := q.Advance(n)
		frames -= f
		size -= b
	}
	gotFrames, gotBytes := q.Pending()
	assert.Equal(t, frames, gotFrames)
	assert.Equal(t, size, gotBytes)
	iov, total := q.Gather(make([]unix.Iovec, 0, 1<<16), 1<<30)
	sent = append(sent, written(iov)...)
	q.Advance(total)
	require.True(t, q.Empty())

	var next [3]int
	for len(sent) > 0 {
		end := bytes.IndexByte(sent, '>')
		require.Equal(t, byte('<'), sent[0])
		var lane, n int
		_, err := fmt.Sscanf(string(sent[:9]), "<%d:%06d", &lane, &n)
		require.NoError(t, err, "%q", sent[:end])
		require.Equal(t, next[lane], n)
		next[lane]++
		sent = sent[end+1:]
	}
	assert.Equal(t, pushed, next)
}

// TestConnSize holds the budget that Conn's comment states.
func TestConnSize(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(engine.Conn{}), uintptr(136))
}
