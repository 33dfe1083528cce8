package engine

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Inflating is the most expensive work that a peer can cause on a loop: up to 0.25 µs for
// each compressed byte. Three bounds protect the other connections of the loop:
//
//   - When the messages of a read, with their handlers, have taken inflateTime, the rest of the
//     read waits for a later turn, behind the other waiting connections.
//   - When the reads since the last turn have taken inflateRound, a read of more than largeRead
//     bytes waits as a whole.
//   - When a message of more than largeRead compressed bytes has taken inflateTime, it continues
//     in steps of that length, one in each turn. A loop inflates one such message at a time; the
//     others wait in line. So a loop keeps one inflater and one inflated message beside the
//     compressed ones.
//
// A waiting connection is paused, so its messages stay in order.
const (
	inflateTime  = time.Millisecond
	inflateRound = 4 * inflateTime
	largeRead    = 4 << 10
	// lookBytes is the number of compressed bytes between two looks at the
	// clock. They take at most 0.25 ms.
	lookBytes = 1 << 10
)

// freeInflated is the message size up to which Config.CompressionMaxRatio does not
// apply.
const freeInflated = 64 << 10

// maxDeflateRatio is a ratio that DEFLATE cannot exceed (RFC 1951: 258 bytes
// for 2 bits).
const maxDeflateRatio = 1100

// inflateLimit returns the largest inflated size of a message of n compressed
// bytes, 0 for no limit, and whether the ratio sets it.
func (cfg *Config) inflateLimit(n int) (limit int64, byRatio bool) {
	limit = cfg.MessageSizeLimit
	if cfg.CompressionMaxRatio <= 0 {
		return limit, false
	}
	ratio := max(freeInflated, int64(n)*int64(min(cfg.CompressionMaxRatio, maxDeflateRatio)))
	if limit > 0 && limit <= ratio {
		return limit, false
	}
	return ratio, true
}

// inflateClock measures the time spent on inflating. Loop-confined: use only on
// the event loop that owns the connections.
type inflateClock struct {
	began time.Time     // start of the read's first compressed message; zero before it
	bytes int           // compressed bytes since the last look
	over  bool          // the read has taken inflateTime
	round time.Duration // of all reads since the last turn
}

func (k *inflateClock) beginMessage() {
	if k.began.IsZero() {
		k.began = time.Now()
	}
}

// endMessage records that a message of n compressed bytes is inflated.
func (k *inflateClock) endMessage(n int) {
	if k.bytes += n; k.bytes >= lookBytes {
		k.bytes = 0
		k.over = time.Since(k.began) > inflateTime
	}
}

func (k *inflateClock) endRead() {
	if !k.began.IsZero() {
		k.round += time.Since(k.began)
		*k = inflateClock{round: k.round}
	}
}

// refuses reports whether a read of n bytes must wait for a turn.
func (k *inflateClock) refuses(n int) bool { return k.round > inflateRound && n > largeRead }

// inflateState is the part of a Shard that compressed messages use.
//
// Loop-confined: use only on the event loop that owns the connections.
type inflateState struct {
	inflated     []byte // scratch for one inflated message
	wireBytes    int    // compressed size of the message that is handed over; 0 if it came plain
	inflateClock inflateClock
	inflations   map[*Conn]*inflation // nil before the first
	inflateLine  []*Conn              // connections with unfinished inflations, and some that have ended
}

// inflate returns the inflated payload of m, in a buffer that is valid until
// the next call. If a later turn must finish it, c is paused and ok is false.
func (c *Conn) inflate(m codec.Message) (payload []byte, ok bool, err error) {
	done, err := c.inflateNow(inflation{op: m.Op, compressed: m.Payload})
	if !done {
		return nil, false, nil
	}
	return c.endInflate(m.Op, err)
}

// checkUnfinished rejects an unfinished compressed text whose received part is
// already invalid. The ratio of a part is not bounded, because it may exceed the
// ratio of the whole message.
func (c *Conn) checkUnfinished() error {
	part := c.in.Unfinished()
	if part == nil {
		return nil
	}
	done, err := c.inflateNow(inflation{compressed: part, part: true})
	if !done {
		return nil
	}
	return c.shard.endPart(err)
}

// inflateNow begins to inflate p, whose compressed bytes are borrowed, into
// s.inflated. It returns false if later turns must finish it; c is paused then.
func (c *Conn) inflateNow(p inflation) (done bool, err error) {
	s := c.shard
	most := time.Hour
	if len(p.compressed) > largeRead && c.canPause() {
		if len(s.inflateLine) > 0 || s.inflateClock.refuses(len(p.compressed)) {
			s.inflateLater(c, p)
			return false, nil
		}
		most = inflateTime
	}
	s.inflateClock.beginMessage()
	p.z = c.newInflater(s.inflated, &p)
	done, err = p.z.Step(most)
	s.inflateClock.endMessage(len(p.compressed))
	if !done {
		s.inflated = nil
		s.inflateLater(c, p)
		return false, nil
	}
	s.inflated = p.z.Bytes()
	p.z.Close()
	return true, s.inflatedErr(&p, err)
}

func (c *Conn) newInflater(dst []byte, p *inflation) *codec.Inflater {
	s := c.shard
	if p.part {
		return codec.NewPartInflater(trimmed(dst), p.compressed, c.deflate().received, s.eng.cfg.MessageSizeLimit)
	}
	limit, _ := s.eng.cfg.inflateLimit(len(p.compressed))
	return codec.NewInflater(trimmed(dst), p.compressed, c.deflate().received, limit)
}

// inflatedErr adds the exceeded bound to an error of inflating p.
func (s *Shard) inflatedErr(p *inflation, err error) error {
	_, byRatio := s.eng.cfg.inflateLimit(len(p.compressed))
	if byRatio && !p.part && errors.Is(err, codec.ErrMessageTooLarge) {
		return fmt.Errorf("%w: it inflates to more than %d times its size", err, s.eng.cfg.CompressionMaxRatio)
	}
	return err
}

// endInflate returns the message in s.inflated.
func (c *Conn) endInflate(op codec.Opcode, err error) ([]byte, bool, error) {
	s := c.shard
	if err != nil {
		return nil, false, err
	}
	if !codec.ValidText(op, s.inflated) {
		return nil, false, codec.ErrInvalidUTF8
	}
	if z := c.deflate(); z.ClientTakeover {
		z.received = codec.AppendHistory(z.received, s.inflated, z.ClientBits)
	}
	return s.inflated, true, nil
}

// endPart checks the part of a text in s.inflated.
func (s *Shard) endPart(err error) error {
	if err == nil && !codec.ValidTextStart(s.inflated) {
		return codec.ErrInvalidUTF8
	}
	return err
}

// inflation is a compressed message that is inflated in later turns.
type inflation struct {
	op         codec.Opcode
	compressed []byte
	part       bool            // of a text message that is checked before it is finished
	z          *codec.Inflater // nil before the first step and after the last
	done       bool
	inflated   []byte // set when done
	err        error  // set when done
}

// inflates reports whether c has a message that is being inflated or waits for
// it.
func (s *Shard) inflates(c *Conn) bool { return len(s.inflations) > 0 && s.inflations[c] != nil }

// inflateLater puts the message at the end of the line and pauses c.
func (s *Shard) inflateLater(c *Conn, p inflation) {
	p.compressed = bytes.Clone(p.compressed)
	if s.inflations == nil {
		s.inflations = make(map[*Conn]*inflation)
	}
	s.inflations[c] = &p
	s.inflateLine = append(s.inflateLine, c)
	s.stats.heldBytes.add(uint64(len(p.compressed)))
	c.pause(pausedByShare)
	if len(s.inflateLine) == 1 {
		s.postUrgent((*inflateTask)(s))
	}
}

// inflateTask does the next step of the first message in the line.
type inflateTask Shard

func (t *inflateTask) RunInLoop(s *Shard) {
	for len(s.inflateLine) > 0 && s.inflations[s.inflateLine[0]] == nil {
		s.advanceInflateLine() // its connection has ended
	}
	if len(s.inflateLine) == 0 {
		return
	}
	c := s.inflateLine[0]
	p := s.inflations[c]
	if p.z == nil {
		p.z = c.newInflater(nil, p)
	}
	p.done, p.err = p.z.Step(inflateTime)
	s.clock.work += clockStep
	if p.done {
		p.err = s.inflatedErr(p, p.err)
		p.inflated = p.z.Bytes()
		p.z.Close()
		p.z = nil
		s.advanceInflateLine()
		c.unpause(pausedByShare)
	}
	if len(s.inflateLine) > 0 {
		s.postUrgent(t)
	}
}

func (s *Shard) advanceInflateLine() {
	s.inflateLine[0] = nil
	if s.inflateLine = s.inflateLine[1:]; len(s.inflateLine) == 0 {
		s.inflateLine = nil
	}
}

// takeInflation returns the message of c that was inflated in later turns. ok
// is false until it is done.
func (s *Shard) takeInflation(c *Conn) (m codec.Message, ok bool, err error) {
	p := s.inflations[c]
	if !p.done {
		return codec.Message{}, false, nil
	}
	s.inflateClock.beginMessage()
	s.forgetInflation(c)
	s.wireBytes, s.inflated = len(p.compressed), p.inflated
	if p.part {
		return codec.Message{}, false, s.endPart(p.err)
	}
	m.Op = p.op
	m.Payload, ok, err = c.endInflate(p.op, p.err)
	return m, ok, err
}

// forgetInflation releases the waiting message of c. The line skips its place.
func (s *Shard) forgetInflation(c *Conn) {
	if !s.inflates(c) {
		return
	}
	p := s.inflations[c]
	delete(s.inflations, c)
	s.stats.heldBytes.add(-uint64(len(p.compressed)))
	if p.z != nil {
		p.z.Close()
	}
}

// canPause reports whether pausing c keeps its bytes in the kernel.
func (c *Conn) canPause() bool {
	return c.end() == nil && c.shard.driver.canPause()
}

// pauseForOthers leaves the rest of c's read to a turn, so that the loop serves
// the other connections first.
func (c *Conn) pauseForOthers() {
	if c.is(pausedFlags) || !c.canPause() {
		return
	}
	c.pause(pausedByShare)
	c.shard.postUrgent((*shareTask)(c))
}

// shareTask resumes a connection that pauseForOthers has paused.
type shareTask Conn

func (t *shareTask) RunInLoop(s *Shard) { (*Conn)(t).unpause(pausedByShare) }

// CompressedInLoop returns the compressed size of the message in OnMessage in
// bytes, or 0 if it came uncompressed. The owner calls it within OnMessage.
func (c *Conn) CompressedInLoop() int {
	if c.deflate() == nil {
		return 0
	}
	return c.shard.wireBytes
}
