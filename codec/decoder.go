package codec

import (
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Message is a whole data message or a control frame. Its payload is borrowed: it is valid
// until the next call of Next, Done or Release of its Decoder, and only until the caller reuses
// the input buffer. Not safe for concurrent use.
type Message struct {
	Op      Opcode
	Payload []byte
	// Compressed reports that the caller must inflate the payload, and then check a text for
	// UTF-8. Only NextDeflate sets it.
	Compressed bool
}

// Decoder turns the bytes of one peer into messages. Its zero value is ready. It is one
// pointer (8 bytes, held in a test), which is nil if the last read ended at the end of a
// message. It must not be copied while it is in use. Not safe for concurrent use.
type Decoder struct {
	p *partial // the unfinished part of earlier reads, or nil
}

// Next decodes b, the bytes behind those of the previous call. It returns the number of bytes
// that it consumed and, if ok, one message. It consumes as much as it can: if ok is false and
// err is nil, n is len(b), and the caller may reuse the buffer.
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
// b is borrowed, and Next changes it: it unmasks a frame that is whole in b in place, without a
// copy or an allocation, and the payload is a part of b. Next assembles other messages in a
// buffer from a pool, which grows with the received bytes and not with the announced length.
//
// limit is the most payload bytes of a data message, all fragments together; zero and negative
// mean no limit. Next returns ErrMessageTooLarge as soon as a header announces more, and
// ErrInvalidUTF8 at the first byte that makes a text invalid. With an error n is 0 and the
// stream is over: the decoder has released its state, and must get no more bytes of it.
func (d *Decoder) Next(b []byte, limit int64) (n int, m Message, ok bool, err error) {
	return d.next(b, assembly{limit: limit})
}

// NextUnmasked is Next for a client: the frames of a server have no mask, and ErrMasked is the
// error of one that has. The payload of a message may be a part of b, which stays unchanged.
func (d *Decoder) NextUnmasked(b []byte, limit int64) (n int, m Message, ok bool, err error) {
	return d.next(b, assembly{limit: limit, unmasked: true})
}

// NextDeflate is Next for a connection that has negotiated permessage-deflate: messages may be
// compressed (RFC 7692 section 6). It returns their payload still compressed, limited to a
// little more than limit; [Inflate] limits the inflated message.
func (d *Decoder) NextDeflate(b []byte, limit int64) (n int, m Message, ok bool, err error) {
	return d.next(b, assembly{limit: limit, deflate: true})
}

func (d *Decoder) next(b []byte, a assembly) (n int, m Message, ok bool, err error) {
	d.Done()
	if d.p == nil {
		h, size, err := parseHeader(b, a)
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
	n, m, ok, err = d.p.next(b, a)
	if err != nil {
		d.Release()
	}
	return n, m, ok, err
}

// nextWhole takes, and unmasks in place, the unfragmented frame at the start of b, whose header h has
// size bytes.
func nextWhole(b []byte, h header, size int) (n int, m Message, ok bool, err error) {
	n = size + int(h.length)
	payload := b[size:n:n]
	if h.masked {
		ws.Cipher(payload, h.key, 0)
	}
	if h.op == OpText && !h.compressed && !utf8.Valid(payload) {
		return 0, Message{}, false, ErrInvalidUTF8
	}
	return n, Message{Op: h.op, Payload: payload, Compressed: h.compressed}, true, nil
}

// Done puts the partial state back into its pool if no frame or message is unfinished. Call it
// after the messages of a read, so that an idle connection holds no buffer. Messages that Next
// returned become invalid.
func (d *Decoder) Done() {
	if d.p != nil && d.p.atBoundary() {
		d.Release()
	}
}

// Release puts the partial state back into its pool, unfinished or not. Call it when the
// connection closes. Messages that Next returned become invalid. The decoder is then as new.
func (d *Decoder) Release() {
	if d.p != nil {
		putPartial(d.p)
		d.p = nil
	}
}

// Pending reports, after Done, whether the bytes so far end within a message or frame.
func (d *Decoder) Pending() bool { return d.p != nil }

// Held returns the memory that an unfinished message or frame takes, in bytes.
func (d *Decoder) Held() int {
	if d.p == nil {
		return 0
	}
	return cap(d.p.buf)
}

// Unfinished returns the received part of a compressed text whose end has not arrived, so that
// the caller can refuse an invalid text early; see [InflateStart]. It returns nil until the part
// is twice as long as the last result for the text, so that all results together are at most
// twice as long as the text. The result is borrowed like a message's payload.
func (d *Decoder) Unfinished() []byte {
	if d.p == nil {
		return nil
	}
	return d.p.unfinished()
}

// Buffered returns the number of payload bytes in the partial state. They belong to a message
// or control frame in progress or, until Done, to the last message returned.
func (d *Decoder) Buffered() int {
	if d.p == nil {
		return 0
	}
	return d.p.buffered()
}
