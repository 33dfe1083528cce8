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
	if err == nil && !codec.ValidTextStart(s.inflated) {
		err = codec.ErrInvalidUTF8
	}
	return err
}
