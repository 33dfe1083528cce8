package engine

import "github.com/qi-realtime/ws/codec"

// freeInflated is the size of a message to which Config.InflateRatio does not apply.
const freeInflated = 64 << 10

// maxDeflateRatio is a ratio that DEFLATE cannot exceed (RFC 1951: 258 bytes for 2 bits).
const maxDeflateRatio = 1100

// inflateLimit returns the most bytes that a message of n compressed bytes may inflate to, 0 for
// no limit.
func (cfg *Config) inflateLimit(n int) int64 {
	limit := cfg.MessageBytes
	if cfg.InflateRatio <= 0 {
		return limit
	}
	byRatio := max(freeInflated, int64(n)*int64(min(cfg.InflateRatio, maxDeflateRatio)))
	if limit > 0 {
		return min(limit, byRatio)
	}
	return byRatio
}

// inflate returns the message whose compressed form is m, in a buffer that is valid until the
// next call.
func (s *Shard) inflate(c *Conn, m codec.Message) (payload []byte, err error) {
	z := c.deflate()
	s.inflated, err = codec.Inflate(trimmed(s.inflated), m.Payload, z.received, s.eng.cfg.inflateLimit(len(m.Payload)))
	s.noteInflated(len(m.Payload))
	if err != nil {
		return nil, err
	}
	if !codec.ValidText(m.Op, s.inflated) {
		return nil, codec.ErrInvalidUTF8
	}
	if z.ClientTakeover {
		z.received = codec.AppendHistory(z.received, s.inflated, z.ClientBits)
	}
	return s.inflated, nil
}

// checkUnfinished rejects an unfinished compressed text whose received part is already invalid.
// The ratio of a part may be above that of the whole, so it is not bounded.
func (s *Shard) checkUnfinished(c *Conn) (err error) {
	part := c.in.Unfinished()
	if part == nil {
		return nil
	}
	s.inflated, err = codec.InflateStart(trimmed(s.inflated), part, c.deflate().received, s.eng.cfg.MessageBytes)
	s.noteInflated(len(part))
	if err == nil && !codec.ValidTextStart(s.inflated) {
		err = codec.ErrInvalidUTF8
	}
	return err
}

const (
	// maxInflateWork is the work of inflating after which the rest of a connection's read waits for
	// a later turn. It takes about 1 ms with usual messages; one of many small blocks takes more.
	maxInflateWork = 512 << 10
	// compressedWork is how often a compressed byte counts in it; an inflated one counts once.
	compressedWork = 4
)

// noteInflated notes the work of inflating n bytes to those in s.inflated.
func (s *Shard) noteInflated(n int) {
	work := compressedWork*n + len(s.inflated)
	s.inflateWork += work
	s.clock.work += work
}

// pauseForOthers puts off the rest of c's read to a turn, so that the loop serves the others first.
func (s *Shard) pauseForOthers(c *Conn) {
	if c.is(pausedFlags) || (s.mem == nil && !s.ready.Load().known()) {
		return // paused already, or could not be
	}
	s.pause(c, pausedByShare)
	if c.is(pausedByShare) {
		s.postUrgent((*shareTask)(c))
	}
}

// shareTask goes on with a connection that pauseForOthers has paused.
type shareTask Conn

func (t *shareTask) RunInLoop(s *Shard) { s.unpause((*Conn)(t), pausedByShare) }

// CompressedInLoop returns the compressed bytes of the message that the owner's OnMessage handles, 0
// if it came uncompressed. The owner calls it within OnMessage.
func (c *Conn) CompressedInLoop() int {
	if c.deflate() == nil {
		return 0
	}
	return c.shard.wireBytes
}
