package codec

import (
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Message is a whole data message or a control frame. Its payload is borrowed: valid until the
// next call of Next, Done or Release on the Decoder it came from, or until the caller's input
// buffer is reused, whichever comes first. Not safe for concurrent use.
type Message struct {
	Op      Opcode
	Payload []byte
	// Compressed tells that the payload is to be inflated, and then to be checked for UTF-8; only
	// after NextDeflate.
	Compressed bool
}

// Decoder turns the bytes of one client into messages. Its zero value is ready. It is one
// pointer (8 bytes, held in a test), which is nil on a connection whose last read ended at the
// end of a message. It must not be copied while it is in use. Not safe for concurrent use.
type Decoder struct {
	p *partial // what is left of earlier reads; nil if nothing
}

// Next decodes b, the bytes that follow those of the previous call, and returns how many of
// them it consumed and, if ok, one message. It consumes all it can: if ok is false and err is
// nil then n is len(b), and the caller may reuse the buffer.
//
//	for len(b) > 0 {
//		n, m, ok, err := d.Next(b, limit)
//		if err != nil {
//			return err // answer with CloseCodeOf(err)
//		}
//		b = b[n:]
//		if ok {
//			handle(m)
//		}
//	}
//	d.Done()
//
// b is borrowed, and Next changes it: a frame that lies in b as a whole is unmasked in place,
// without a copy or an allocation, and its payload is a part of b. What arrives in pieces is
// assembled in a buffer from a pool, which grows with the bytes that came and not with the
// length announced.
//
// limit is the most payload bytes of a data message, all fragments together; zero and negative
// mean no limit. Next returns ErrMessageTooLarge as soon as a header announces more, and
// ErrInvalidUTF8 with the first byte of a text that cannot be right. With an error n is 0 and
// the stream is over: the decoder has released its state and must not be given more of it.
func (d *Decoder) Next(b []byte, limit int64) (n int, m Message, ok bool, err error) {
	return d.next(b, limit, false)
}

// NextDeflate is Next for a connection that has negotiated permessage-deflate: messages may be
// compressed (RFC 7692 section 6). Their payload is returned as it came, limited to a little more
// than limit; [Inflate] limits what it inflates to.
func (d *Decoder) NextDeflate(b []byte, limit int64) (n int, m Message, ok bool, err error) {
	return d.next(b, limit, true)
}

func (d *Decoder) next(b []byte, limit int64, deflate bool) (n int, m Message, ok bool, err error) {
	d.Done()
	if d.p == nil {
		h, size, err := parseHeader(b, assembly{limit: limit, deflate: deflate})
		if err != nil {
			return 0, Message{}, false, err
		}
		if size > 0 && h.fin && h.length <= int64(len(b)-size) {
			return nextWhole(b, h, size)
		}
		if len(b) == 0 {
			return 0, Message{}, false, nil
		}
		d.p = partials.Get().(*partial)
	}
	n, m, ok, err = d.p.next(b, limit, deflate)
	if err != nil {
		d.Release()
	}
	return n, m, ok, err
}

// nextWhole unmasks the unfragmented frame that b begins with, header h of size bytes, where
// it lies.
func nextWhole(b []byte, h header, size int) (n int, m Message, ok bool, err error) {
	n = size + int(h.length)
	payload := b[size:n:n]
	ws.Cipher(payload, h.key, 0)
	if h.op == OpText && !h.compressed && !utf8.Valid(payload) {
		return 0, Message{}, false, ErrInvalidUTF8
	}
	return n, Message{Op: h.op, Payload: payload, Compressed: h.compressed}, true, nil
}

// Done gives the partial state back to its pool if the last message was the end of all that
// arrived. Call it after the messages of a read, so that an idle connection holds no buffer.
// Messages that Next returned become invalid.
func (d *Decoder) Done() {
	if d.p != nil && d.p.atBoundary() {
		d.Release()
	}
}

// Release gives the partial state back to its pool, whatever it holds. Call it when the
// connection closes. Messages that Next returned become invalid. The decoder is then as new.
func (d *Decoder) Release() {
	if d.p != nil {
		putPartial(d.p)
		d.p = nil
	}
}

// Pending reports, behind Done, whether the bytes so far end within a message or frame.
func (d *Decoder) Pending() bool { return d.p != nil }

// Held returns the memory that an unfinished message or frame takes, in bytes.
func (d *Decoder) Held() int {
	if d.p == nil {
		return 0
	}
	return cap(d.p.buf)
}

// Unfinished returns what has come of a compressed text whose end has not, so that one that cannot
// be right need not be awaited; see [InflateStart]. It is nil unless there is at least twice as much
// as it last returned of the text: what it returns is together no longer than twice the whole. It is
// borrowed like a message's payload.
func (d *Decoder) Unfinished() []byte {
	if d.p == nil {
		return nil
	}
	return d.p.unfinished()
}

// Buffered returns the payload bytes held in the partial state: of a message or control frame
// in progress, or of the last one returned, until Done.
func (d *Decoder) Buffered() int {
	if d.p == nil {
		return 0
	}
	return d.p.buffered()
}
