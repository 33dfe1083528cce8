package codec

import (
	"bytes"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"
)

// Deflate holds the parameters of permessage-deflate (RFC 7692) that a handshake agreed on. The
// zero value means that the extension is not in use. Immutable after New.
type Deflate struct {
	// ServerBits and ClientBits are the base-2 logarithms of the compression windows of the
	// server and of the client, 8 to 15.
	ServerBits, ClientBits uint8
	// ServerTakeover and ClientTakeover report that a message may refer to earlier messages of
	// the same direction.
	ServerTakeover, ClientTakeover bool
}

// The sizes of a window, as base-2 logarithms (RFC 7692 section 7.1.2).
const (
	MinWindowBits = 8
	MaxWindowBits = 15
)

// deflateTail is the end of a compressed message, which a sender leaves out (RFC 7692 section
// 7.2.1).
const deflateTail = "\x00\x00\xff\xff"

// Deflater compresses messages of one level. Safe for concurrent use.
type Deflater struct {
	level int
	pools [MaxWindowBits + 1]sync.Pool // of *deflateWriter, by window bits
}

// deflateWriter is a compressor with its output. Not safe for concurrent use.
type deflateWriter struct {
	flate *flate.Writer
	out   []byte
}

func (w *deflateWriter) Write(b []byte) (int, error) {
	w.out = append(w.out, b...)
	return len(b), nil
}

// NewDeflater returns a Deflater with a level from 1, fast, to 9, small. Windows below 15 bits
// have a level of their own.
func NewDeflater(level int) *Deflater { return &Deflater{level: level} }

// Append compresses payload for a window of 2^bits bytes and appends the result to dst. history
// holds the earlier messages to the receiver; its last 2^bits bytes count. It is empty without
// context takeover. payload and history are borrowed.
func (z *Deflater) Append(dst, payload, history []byte, bits uint8) []byte {
	w, ok := z.pools[bits].Get().(*deflateWriter)
	if !ok {
		w = z.newWriter(bits)
	}
	w.out = dst
	if window := 1 << bits; len(history) > window {
		history = history[len(history)-window:]
	}
	// A deflateWriter returns no error, so the compressor has none.
	w.flate.ResetDict(w, history)
	_, _ = w.flate.Write(payload)
	_ = w.flate.Flush()
	dst = bytes.TrimSuffix(w.out, []byte(deflateTail))
	w.out = nil
	w.flate.ResetDict(nil, nil)
	z.pools[bits].Put(w)
	return dst
}

func (z *Deflater) newWriter(bits uint8) *deflateWriter {
	w := new(deflateWriter)
	var err error
	if bits == MaxWindowBits {
		w.flate, err = flate.NewWriter(w, z.level)
	} else {
		w.flate, err = flate.NewWriterWindow(w, 1<<bits)
	}
	if err != nil {
		panic("codec: " + err.Error()) // a level or window that does not exist
	}
	return w
}

// AppendHistory adds a message to the history of its direction and returns the last 2^bits bytes.
// history is changed; message is borrowed.
func AppendHistory(history, message []byte, bits uint8) []byte {
	window := 1 << bits
	if len(message) >= window {
		return append(history[:0], message[len(message)-window:]...)
	}
	if excess := len(history) + len(message) - window; excess > 0 {
		history = history[:copy(history, history[excess:])]
	}
	return append(history, message...)
}

// AppendDeflatedFrame is AppendFrame for a message whose payload is compressed (RFC 7692 section
// 6). Safe for concurrent use.
func AppendDeflatedFrame(dst []byte, op Opcode, payload []byte) []byte {
	at := len(dst)
	dst = AppendFrame(dst, op, payload)
	dst[at] |= bitRSV1
	return dst
}

// NewDeflatedFrame is NewFrame for a message whose payload is compressed. Safe for concurrent
// use.
func NewDeflatedFrame(op Opcode, payload []byte) []byte {
	return AppendDeflatedFrame(slices.Grow([]byte(nil), HeaderSize(len(payload))+len(payload)), op, payload)
}

// SplitFrame returns the opcode and the payload of one whole unmasked frame. Safe for concurrent
// use.
func SplitFrame(frame []byte) (op Opcode, payload []byte) {
	switch frame[1] & bitsLen {
	case lenTwo:
		payload = frame[4:]
	case lenEight:
		payload = frame[MaxHeaderSize:]
	default:
		payload = frame[2:]
	}
	return Opcode(frame[0] & bitsOp), payload
}

// DeflateOptions holds the settings of a server for permessage-deflate. Immutable after New.
type DeflateOptions struct {
	Takeover   bool  // allow context takeover, in both directions
	WindowBits uint8 // the largest window, for both directions; 8 to 15
}

// NegotiateDeflate chooses the first acceptable offer of permessage-deflate among the values of
// a request's Sec-WebSocket-Extensions (RFC 7692 sections 5 and 7.1). It returns the value of the
// answer, or "" if there is no such offer. It declines other extensions, and offers with an
// unknown or repeated parameter or an invalid value. For values that are no list of extensions
// it returns a *[RequestError] with status 400 (RFC 6455 section 9.1). Safe for concurrent use.
func NegotiateDeflate(values []string, o DeflateOptions) (d Deflate, answer string, err error) {
	for _, value := range values {
		offers, ok := parseExtensions(value)
		if !ok {
			return Deflate{}, "", badRequest("malformed Sec-WebSocket-Extensions")
		}
		for _, offer := range offers {
			if answer == "" {
				d, answer = o.accept(offer)
			}
		}
	}
	return d, answer, nil
}

// accept answers one offer. It declines the offer with "".
func (o DeflateOptions) accept(offer extension) (Deflate, string) {
	p, ok := parseDeflateOffer(offer)
	if !ok {
		return Deflate{}, ""
	}
	d := Deflate{
		ServerBits: min(o.WindowBits, p.serverBits), ClientBits: MaxWindowBits,
		ServerTakeover: o.Takeover && !p.serverNoTakeover, ClientTakeover: o.Takeover && !p.clientNoTakeover,
	}
	answer := deflateName
	if !d.ServerTakeover {
		answer += "; " + serverNoTakeover
	}
	if !d.ClientTakeover {
		answer += "; " + clientNoTakeover
	}
	if p.hasServerBits || d.ServerBits < MaxWindowBits {
		answer += "; " + serverMaxBits + "=" + bitsText[d.ServerBits]
	}
	if p.hasClientBits { // only then may the answer limit it
		d.ClientBits = min(o.WindowBits, p.clientBits)
		if d.ClientBits < MaxWindowBits {
			answer += "; " + clientMaxBits + "=" + bitsText[d.ClientBits]
		}
	}
	return d, answer
}

// The names in an offer.
const (
	deflateName      = "permessage-deflate"
	serverNoTakeover = "server_no_context_takeover"
	clientNoTakeover = "client_no_context_takeover"
	serverMaxBits    = "server_max_window_bits"
	clientMaxBits    = "client_max_window_bits"
)

// bitsText holds the texts of the possible window bits.
var bitsText = [MaxWindowBits + 1]string{8: "8", 9: "9", 10: "10", 11: "11", 12: "12", 13: "13", 14: "14", 15: "15"}

// deflateOffer holds the parameters of an offer. Immutable after New.
type deflateOffer struct {
	serverNoTakeover, clientNoTakeover bool
	hasServerBits, hasClientBits       bool
	serverBits, clientBits             uint8
}

// parseDeflateOffer reads an offer. ok is false for an offer that must be declined (RFC 7692
// section 7.1).
func parseDeflateOffer(offer extension) (p deflateOffer, ok bool) {
	p = deflateOffer{serverBits: MaxWindowBits, clientBits: MaxWindowBits}
	if offer.name != deflateName {
		return p, false
	}
	for i, param := range offer.params {
		for _, other := range offer.params[:i] {
			if other.name == param.name {
				return p, false
			}
		}
		switch param.name {
		case serverNoTakeover:
			p.serverNoTakeover, ok = true, !param.hasValue
		case clientNoTakeover:
			p.clientNoTakeover, ok = true, !param.hasValue
		case serverMaxBits:
			p.hasServerBits = true
			p.serverBits, ok = parseBits(param.value)
		case clientMaxBits:
			p.hasClientBits, ok = true, true
			if param.hasValue {
				p.clientBits, ok = parseBits(param.value)
			}
		default:
			ok = false
		}
		if !ok {
			return p, false
		}
	}
	return p, true
}

// parseBits reads window bits: 8 to 15 without leading zeros.
func parseBits(value string) (uint8, bool) {
	for bits := uint8(MinWindowBits); bits <= MaxWindowBits; bits++ {
		if value == bitsText[bits] {
			return bits, true
		}
	}
	return 0, false
}
