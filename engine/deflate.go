package engine

import (
	"sync"
	"sync/atomic"

	"github.com/qi-realtime/ws/codec"
)

// deflate is a connection's state for permessage-deflate (RFC 7692). Without
// context takeover it never changes, and connections share it.
type deflate struct {
	codec.Deflate

	// Loop-confined: the last messages of the two sides, as far as the window
	// reaches, each only with context takeover on that side.
	sent, received []byte
}

// sharedDeflates are the parts, by the server's window, of connections without
// context takeover and without other parts.
var sharedDeflates = func() (shared [codec.MaxWindowBits + 1]*lazyState) {
	for bits := range shared {
		d := &deflate{Deflate: codec.Deflate{ServerBits: uint8(bits), ClientBits: codec.MaxWindowBits}}
		shared[bits] = &lazyState{deflate: d}
	}
	return shared
}()

// SetDeflate sets the parameters that the handshake has negotiated. It must be
// called before the connection is open.
func (c *Conn) SetDeflate(d codec.Deflate) {
	if d.ServerBits == 0 {
		return
	}
	if !d.ServerTakeover && !d.ClientTakeover && c.lazy.CompareAndSwap(nil, sharedDeflates[d.ServerBits]) {
		return
	}
	c.updateLazy(func(x *lazyState) { x.deflate = &deflate{Deflate: d} })
}

// Deflate returns the parameters that the handshake has negotiated; the zero value is no
// compression. Safe for concurrent use.
func (c *Conn) Deflate() codec.Deflate {
	if d := c.deflate(); d != nil {
		return d.Deflate
	}
	return codec.Deflate{}
}

// variants are the compressed forms of a frame, by the bits of the window. Safe
// for concurrent use.
type variants struct {
	frames [codec.MaxWindowBits + 1]atomic.Pointer[Frame] // each is set once, with mu held

	mu sync.Mutex
}

// variant returns f in the form for c: compressed, if that was negotiated and
// pays. With context takeover, commit compresses instead.
func (c *Conn) variant(f *Frame) *Frame {
	s := c.shard
	z := c.deflate()
	if z == nil || z.ServerTakeover || !s.worthDeflating(f) {
		return f
	}
	return f.deflated(s.eng.deflater, z.ServerBits)
}

// worthDeflating reports whether f is a data message that reaches
// Config.CompressionThreshold.
func (s *Shard) worthDeflating(f *Frame) bool {
	return !f.exempt && len(f.data) >= s.eng.cfg.CompressionThreshold+codec.HeaderSize(s.eng.cfg.CompressionThreshold)
}

// deflated returns f compressed for a window of the given bits, or f itself if
// that is not shorter. It compresses f once, for all callers.
func (f *Frame) deflated(z *codec.Deflater, bits uint8) *Frame {
	v := f.variants.Load()
	if v == nil {
		v = new(variants)
		if !f.variants.CompareAndSwap(nil, v) {
			v = f.variants.Load()
		}
	}
	if g := v.frames[bits].Load(); g != nil {
		return g
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.frames[bits].Load(); g != nil {
		return g
	}
	g := f
	if f.origin == nil {
		if g = f.compress(z, nil, bits); g.Len() >= f.Len() {
			g = f
		}
	} else if o := f.origin.deflated(z, bits); o != f.origin {
		g = f.copy()
		g.data, g.origin = o.data, nil
	}
	v.frames[bits].Store(g)
	return g
}

// compress returns f compressed; the result may be longer.
func (f *Frame) compress(z *codec.Deflater, history []byte, bits uint8) *Frame {
	op, payload := f.Payload()
	deflated := z.Append(make([]byte, 0, len(payload)/2), payload, history, bits)
	g := f.copy()
	g.data, g.origin = codec.NewDeflatedFrame(op, deflated), nil
	return g
}

// deflateReply compresses the payload of a reply into the shard's scratch
// buffer. It returns nil if the payload should go uncompressed.
func (c *Conn) deflateReply(payload []byte) []byte {
	s := c.shard
	if c.deflate() == nil || len(payload) < s.eng.cfg.CompressionThreshold {
		return nil
	}
	s.deflated = s.eng.deflater.Append(trimmed(s.deflated), payload, nil, c.deflate().ServerBits)
	if len(s.deflated) >= len(payload) {
		return nil
	}
	return s.deflated
}

// maxScratch bounds the capacity that a scratch buffer keeps.
const maxScratch = 256 << 10

// trimmed returns a scratch buffer for its next use.
func trimmed(scratch []byte) []byte {
	if cap(scratch) > maxScratch {
		return nil
	}
	return scratch[:0]
}

// maxCommitted is the number of bytes that are compressed ahead of the socket
// for a connection with context takeover.
const maxCommitted = 16 << 10

// commit compresses the frames that c sends next, with the sent ones as
// context. This fixes the order of these frames, and none can be dropped alone,
// because the client could not inflate the following ones.
func (c *Conn) commit() {
	s := c.shard
	z := c.deflate()
	if z == nil || !z.ServerTakeover {
		return
	}
	committed, bytes := &c.out.lanes[laneCommitted], 0
	for _, f := range committed.frames[committed.head:] {
		bytes += f.Len()
	}
	for _, lane := range []Lane{LaneControl, LaneHigh, LaneNormal} {
		for l := &c.out.lanes[lane]; l.len() > 0 && bytes < maxCommitted; {
			f := l.pop()
			g := f
			if s.worthDeflating(f) {
				// Even if the result is not shorter: the next one may refer to
				// it.
				s.clock.work += deflateWork * f.Len()
				g = f.compress(s.eng.deflater, z.sent, z.ServerBits)
				_, payload := f.Payload()
				z.sent = codec.AppendHistory(z.sent, payload, z.ServerBits)
				g.key, g.expires = "", 0
				c.queued[f.lane].Add(uint64(int64(g.Len() - f.Len()))) // wraps around for a negative one
				c.out.cost += g.cost() - f.cost()
			}
			committed.push(g)
			bytes += g.Len()
		}
	}
}
