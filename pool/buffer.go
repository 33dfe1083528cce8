package pool

import (
	"sync"

	"github.com/valyala/bytebufferpool"

	"github.com/qi-realtime/ws/internal/invariants"
)

// MaxPooledBytes is the largest capacity that PutBuffer keeps, 64 KiB, because one large
// message must not pin its buffer.
const MaxPooledBytes = 64 << 10

// Buffer is a growable byte buffer with its bytes in B. Not safe for concurrent use.
type Buffer = bytebufferpool.ByteBuffer

// buffers is a sync.Pool that learns the usual size. It is apart from the default pool of
// bytebufferpool, so that other users of that package do not change the size it learns.
var buffers bytebufferpool.Pool

// GetBuffer returns an empty buffer. The caller owns it, and hands it to PutBuffer when the
// buffer and its bytes are no longer in use. Safe for concurrent use.
func GetBuffer() *Buffer {
	b := buffers.Get()
	if invariants.Enabled {
		live.add(b)
	}
	return b
}

// PutBuffer takes b, which is owned, back for a later GetBuffer. A buffer larger than
// MaxPooledBytes is left to the collector. Under the build tag invariants PutBuffer overwrites
// the bytes, and panics if b did not come from GetBuffer or was put back before.
// Safe for concurrent use.
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

// live holds the buffers that are in use. It is empty unless invariants.Enabled.
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
