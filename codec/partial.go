package codec

import (
	"sync"

	"github.com/gobwas/ws"

	"github.com/qi-realtime/ws/internal/invariants"
)

const (
	// maxPooledBytes is the largest assembly buffer of a partial in the pool. A larger buffer is
	// left to the collector, so that one huge message does not stay in memory.
	maxPooledBytes = 64 << 10
	// maxEmptyFragments is the greatest number of empty fragments in a message. A limit on the
	// size of the message does not bound them.
	maxEmptyFragments = 1000
	// minAssemblyBytes is the first size of an assembly buffer, unless the message is shorter.
	minAssemblyBytes = 4 << 10
)

// partials holds partial states between uses.
var partials = sync.Pool{New: func() any { return new(partial) }}

// partial is the state of a connection whose last read ended within a frame or between the
// fragments of a message. It comes from the pool partials and goes back there. Not safe for
// concurrent use.
type partial struct {
	// The data message.
	buf        []byte    // the payload so far, unmasked
	op         Opcode    // OpText or OpBinary; OpContinuation means that there is no message
	text       utf8State // of an OpText that is not compressed
	compressed bool      // RSV1 was set on the first frame
	empty      uint16    // the number of empty fragments
	shown      int       // the length of the last result of Unfinished

	// The frame, of the message or a control frame between its fragments.
	head      [maxClientHeaderSize]byte // the header bytes so far
	headLen   uint8                     // their number; 0 again once the header is whole
	inPayload bool                      // the header is whole, the payload is not
	h         header                    // the last whole header
	read      int64                     // the payload bytes so far
	control   [MaxControlPayload]byte   // the payload of a control frame so far, unmasked
}

// putPartial puts p back into the pool. Messages with bytes in p become invalid.
func putPartial(p *partial) {
	if invariants.Enabled {
		invariants.Poison(p.buf[:cap(p.buf)])
		invariants.Poison(p.control[:])
	}
	buf := p.buf[:0]
	if cap(buf) > maxPooledBytes {
		buf = nil
	}
	*p = partial{buf: buf}
	partials.Put(p)
}

// atBoundary reports whether the last byte read was the last of a message or control frame
// and no message is in progress.
func (p *partial) atBoundary() bool {
	return p.op == OpContinuation && p.headLen == 0 && !p.inPayload
}

// next is Decoder.Next for a connection with partial state. b and m are borrowed.
func (p *partial) next(b []byte, a assembly) (n int, m Message, ok bool, err error) {
	for n < len(b) && !ok {
		if !p.inPayload {
			taken, err := p.readHeader(b[n:], a)
			if err != nil {
				return 0, Message{}, false, err
			}
			n += taken
		}
		if !p.inPayload {
			continue
		}
		taken, err := p.readPayload(b[n:])
		if err != nil {
			return 0, Message{}, false, err
		}
		n += taken
		if p.read < p.h.length {
			continue
		}
		if m, ok, err = p.endFrame(); err != nil {
			return 0, Message{}, false, err
		}
	}
	return n, m, ok, nil
}

// readHeader takes header bytes from b, and begins the payload if they complete the header.
func (p *partial) readHeader(b []byte, a assembly) (n int, err error) {
	before := int(p.headLen)
	p.read = 0
	n = copy(p.head[before:], b)
	a.fragmented, a.compressed, a.size = p.op != OpContinuation, p.compressed, int64(len(p.buf))
	h, size, err := parseHeader(p.head[:before+n], a)
	if err != nil {
		return 0, err
	}
	if size == 0 {
		p.headLen += uint8(n)
		return n, nil
	}
	p.headLen, p.inPayload, p.h = 0, true, h
	if h.op == OpText || h.op == OpBinary {
		p.op, p.compressed = h.op, h.compressed
	}
	return size - before, nil
}

// readPayload takes the payload bytes of the frame from b.
func (p *partial) readPayload(b []byte) (n int, err error) {
	left := p.h.length - p.read
	if int64(len(b)) > left {
		b = b[:left]
	}
	if p.h.op.IsControl() {
		at := p.control[p.read:]
		copy(at, b)
		p.unmask(at[:len(b)])
		p.read += int64(len(b))
		return len(b), nil
	}
	p.grow(len(b), left)
	at := len(p.buf)
	p.buf = append(p.buf, b...)
	p.unmask(p.buf[at:])
	p.read += int64(len(b))
	if p.op == OpText && !p.compressed && !p.text.write(p.buf[at:]) {
		return 0, ErrInvalidUTF8
	}
	return len(b), nil
}

// unmask unmasks the payload bytes behind the first p.read ones.
func (p *partial) unmask(b []byte) {
	if p.h.masked {
		ws.Cipher(b, p.h.key, int(p.read%4))
	}
}

// grow makes space in the assembly buffer for n bytes of a frame that has announced left more.
// It doubles the buffer, so that memory follows the received bytes and not the announced length.
// Only the length of the last frame bounds the buffer: the length of each fragment as a bound
// would cost a copy for each fragment.
func (p *partial) grow(n int, left int64) {
	if cap(p.buf)-len(p.buf) >= n {
		return
	}
	space := max(2*cap(p.buf), minAssemblyBytes) - len(p.buf)
	if p.h.fin && int64(space) > left {
		space = int(left)
	}
	buf := make([]byte, len(p.buf), len(p.buf)+max(space, n))
	copy(buf, p.buf)
	p.buf = buf
}

// endFrame ends a frame whose payload is whole. ok reports whether the frame ends a message. m
// is borrowed until the state changes or goes back into the pool.
func (p *partial) endFrame() (m Message, ok bool, err error) {
	p.inPayload = false
	if p.h.op.IsControl() {
		return Message{Op: p.h.op, Payload: p.control[:p.h.length]}, true, nil
	}
	if !p.h.fin {
		if p.h.length == 0 {
			p.empty++
		}
		if p.empty > maxEmptyFragments {
			return Message{}, false, ErrEmptyFragments
		}
		return Message{}, false, nil
	}
	if !p.text.complete() {
		return Message{}, false, ErrInvalidUTF8
	}
	m = Message{Op: p.op, Payload: p.buf, Compressed: p.compressed}
	p.op, p.empty, p.shown = OpContinuation, 0, 0
	return m, true, nil
}

// buffered returns the number of payload bytes in p.
func (p *partial) buffered() int {
	if p.h.op.IsControl() {
		return len(p.buf) + int(p.read)
	}
	return len(p.buf)
}

// unfinished is Decoder.Unfinished.
func (p *partial) unfinished() []byte {
	if p.op != OpText || !p.compressed || len(p.buf) < max(2*p.shown, 1) {
		return nil
	}
	p.shown = len(p.buf)
	return p.buf
}
