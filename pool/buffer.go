package pool

import (
	"sync"

	"github.com/valyala/bytebufferpool"

	"github.com/qi-realtime/ws/internal/invariants"
)

// MaxPooledBytes is the largest capacity PutBuffer keeps, 64 KiB: one large message must not
// pin its buffer.
const MaxPooledBytes = 64 << 10

// Buffer is a growable byte buffer; its bytes are in B. Not safe for concurrent use.
type Buffer = bytebufferpool.ByteBuffer

// buffers is a sync.Pool that learns the usual size. Ours alone, so that other users of
// bytebufferpool in the process do not teach it theirs.
var buffers bytebufferpool.Pool

// GetBuffer returns an empty buffer. The caller owns it, and hands it to PutBuffer once it
// and no one else uses it or its bytes. Safe for concurrent use.
func GetBuffer() *Buffer {
	b := buffers.Get()
	if invariants.Enabled {
		live.add(b)
	}
	return b
}

// PutBuffer takes b back for a later GetBuffer; one that holds more than MaxPooledBytes is
// left to the collector. b and its bytes are not the caller's any more. Under the build tag
// invariants it overwrites them, and panics if b did not come from GetBuffer or was put back
// before. Safe for concurrent use.
func PutBuffer(b *Buffer) {
	if invariants.Enabled {
		live.remove(b)
		invariants.Poison(b.B[:cap(b.B)])
	}
	if cap(b.B) > MaxPooledBytes {
		return
	}
	buffers.Put(b)
}

// live holds the buffers that GetBuffer handed out; empty unless invariants.Enabled.
var live bufferSet

// bufferSet is a set of buffers. Safe for concurrent use.
type bufferSet struct {
	// Guarded by mu.
	mu  sync.Mutex
	set map[*Buffer]struct{}
}

func (s *bufferSet) add(b *Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[*Buffer]struct{})
	}
	s.set[b] = struct{}{}
}

func (s *bufferSet) remove(b *Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.set[b]; !ok {
		panic("pool: buffer released twice, or not from GetBuffer")
	}
	delete(s.set, b)
}
