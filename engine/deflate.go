package engine

import (
	"sync"

	"github.com/qi-realtime/ws/codec"
)

// deflate is what a connection keeps for permessage-deflate (RFC 7692). Without
// context takeover nothing changes in it, and connections share it.
type deflate struct {
	codec.Deflate

	// Loop-confined. What the two sides have sent, as far back as the window
	// reaches; for a side with context takeover only.
	sent, received []byte
}

// sharedDeflates are the extras of connections with nothing else in them and
// without context takeover, by the server's window.
var sharedDeflates = func() (shared [codec.MaxWindowBits + 1]*connExtra) {
	for bits := range shared {
		d := &deflate{Deflate: codec.Deflate{ServerBits: uint8(bits), ClientBits: codec.MaxWindowBits}}
		shared[bits] = &connExtra{deflate: d}
	}
	return shared
}()

// SetDeflate says what the handshake has agreed on. It must be called before
// the connection is open.
func (c *Conn) SetDeflate(d codec.Deflate) {
	if d.ServerBits == 0 {
		return
	}
	if !d.ServerTakeover && !d.ClientTakeover && c.extra.CompareAndSwap(nil, sharedDeflates[d.ServerBits]) {
		return
	}
	c.updateExtra(func(x *connExtra) { x.deflate = &deflate{Deflate: d} })
}

// variants are the compressed forms of a frame, by the window's bits. Safe for
// concurrent use.
type variants struct {
	mu     sync.Mutex
	frames [codec.MaxWindowBits + 1]*Frame // guarded by mu
}

// variant returns f in the form for c: compressed, if that was negotiated and is
// worth it. With context takeover that is for commit to do.
func (s *Shard) variant(c *Conn, f *Frame) *Frame {
	z := c.deflate()
	if z == nil || z.ServerTakeover || !s.worthDeflating(f) {
		return f
	}
	return f.deflated(s.eng.deflater, z.ServerBits)
}

// worthDeflating reports whether f is a data message of the size that is
// compressed.
func (s *Shard) worthDeflating(f *Frame) bool {
	return !f.exempt && len(f.data) >= s.eng.cfg.DeflateThreshold+codec.HeaderSize(s.eng.cfg.DeflateThreshold)
}

// deflated returns f compressed for a window of so many bits, or f itself if
// that does not make it shorter. However many ask, it is compressed once.
func (f *Frame) deflated(z *codec.Deflater, bits uint8) *Frame {
	v := f.variants.Load()
	if v == nil {
		v = new(variants)
		if !f.variants.CompareAndSwap(nil, v) {
			v = f.variants.Load()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.frames[bits]; g != nil {
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
	v.frames[bits] = g
	return g
}

// compress returns f compressed, which may make it longer.
func (f *Frame) compress(z *codec.Deflater, history []byte, bits uint8) *Frame {
	op, payload := codec.SplitFrame(f.data)
	deflated := z.Append(make([]byte, 0, len(payload)/2), payload, history, bits)
	g := f.copy()
	g.data, g.origin = codec.NewDeflatedFrame(op, deflated), nil
	return g
}

// deflateReply compresses the payload of a reply into the shard's scratch
// buffer; nil if it is to go as it is.
func (s *Shard) deflateReply(c *Conn, payload []byte) []byte {
	if c.deflate() == nil || len(payload) < s.eng.cfg.DeflateThreshold {
		return nil
	}
	s.deflated = s.eng.deflater.Append(trimmed(s.deflated), payload, nil, c.deflate().ServerBits)
	if len(s.deflated) >= len(payload) {
		return nil
	}
	return s.deflated
}

// maxScratch bounds what a scratch buffer keeps.
const maxScratch = 256 << 10

// trimmed returns a scratch buffer for its next use.
func trimmed(scratch []byte) []byte {
	if cap(scratch) > maxScratch {
		return nil
	}
	return scratch[:0]
}

// maxCommitted is how many bytes of a connection with context takeover are
// compressed ahead of the socket.
const maxCommitted = 16 << 10

// commit compresses what c sends next, with what it has sent before as context.
// From then on the order of these frames is fixed and none of them can be
// dropped alone: the client could not inflate what follows.
func (s *Shard) commit(c *Conn) {
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
				// Also one that does not become shorter: the next may refer to it.
				s.clock.work += deflateWork * f.Len()
				g = f.compress(s.eng.deflater, z.sent, z.ServerBits)
				_, payload := codec.SplitFrame(f.data)
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
