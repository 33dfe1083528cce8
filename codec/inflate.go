package codec

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
)

// endOfDeflate is a final block, which tells the inflater to stop.
const endOfDeflate = "\x01\x00\x00\xff\xff"

// inflaters holds decompressors between uses.
var inflaters = sync.Pool{New: func() any {
	f := new(inflater)
	f.flate = flate.NewReader(&f.in)
	f.countBlocks = flate.WithEobCallback(f.endBlock)
	return f
}}

// inflater is a decompressor and its input. Not safe for concurrent use.
type inflater struct {
	flate       io.ReadCloser
	countBlocks flate.ReaderOpt // calls endBlock
	in          bytes.Reader
	buf         []byte // the compressed message, with its tail

	blocks        int   // of the message, so far
	before        int64 // bytes that the message's earlier streams have inflated to
	tooManyBlocks bool
}

// A block can cost much more than its bytes: the tables of a block of 12 bytes, which may inflate to
// nothing, take 3 µs to build. A message may have freeBlocks, and one more for each minBlockBytes
// that it inflates to. The smallest blocks of zlib (memLevel 1) hold 127 symbols, and a client that
// flushes its compressor within a message makes two blocks of each flush.
const (
	freeBlocks    = 512
	minBlockBytes = 100
)

// resumable is the method of flate's decompressor that resets it and keeps its scratch memory.
type resumable interface {
	ResetCP(r io.Reader, cp flate.InflateCheckpoint) error
}

// reset begins a stream of f.in, behind context.
func (f *inflater) reset(context []byte) error {
	err := f.flate.(resumable).ResetCP(&f.in, flate.InflateCheckpoint{Window: context})
	setOption(f.countBlocks, f.flate)
	return err
}

// setOption applies an option of flate's decompressor, a type that is not exported. A reset drops the
// options, and a new decompressor for each message would cost 50 KiB.
func setOption[T any](option func(*T), reader io.Reader) { option(any(reader).(*T)) }

// endBlock counts a block, and ends the input if there are too many.
func (f *inflater) endBlock(cp flate.InflateCheckpoint) {
	f.blocks++
	if int64(f.blocks) > freeBlocks+(f.before+cp.UncompressedOffset)/minBlockBytes {
		f.tooManyBlocks = true
		f.in.Reset(nil)
	}
}

// maxInflaterBytes bounds the buffer of an inflater in the pool.
const maxInflaterBytes = 64 << 10

// maxStreams is how many blocks of a message may call themselves the last. Each of them costs more
// than its two bytes tell; honest clients send one.
const maxStreams = 64

// minInflateBytes is the least room that inflating begins with.
const minInflateBytes = 4 << 10

// Inflate appends to dst the message whose compressed form is payload (RFC 7692 section 7.2.2).
// history is what the client has sent before, or empty without context takeover. It returns
// ErrMessageTooLarge as soon as there are more than limit bytes, and ErrInvalidDeflate if payload
// is no compressed message, or one of many more blocks than its length needs; zero and negative limits mean none. payload and history are borrowed.
// Safe for concurrent use.
func Inflate(dst, payload, history []byte, limit int64) ([]byte, error) {
	if len(payload) == 0 {
		return dst, nil
	}
	f := inflaters.Get().(*inflater)
	defer f.release()
	f.buf = append(append(append(f.buf[:0], payload...), deflateTail...), endOfDeflate...)
	f.in.Reset(f.buf)
	dst, err := f.inflate(dst, history, limit, len(deflateTail)+len(endOfDeflate))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrInvalidDeflate
	}
	return dst, err
}

// InflateStart is Inflate for a message of which payload is the first part. It appends what that
// tells already, but perhaps for the last symbols: the inflater looks ahead by up to four bytes. Its
// errors are those that no rest can mend. Safe for concurrent use.
func InflateStart(dst, payload, history []byte, limit int64) ([]byte, error) {
	f := inflaters.Get().(*inflater)
	defer f.release()
	f.in.Reset(payload)
	dst, err := f.inflate(dst, history, limit, 0)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return dst, err
}

// inflate appends to dst what f.in holds; up to tail bytes at its end may be left. It returns
// io.ErrUnexpectedEOF if that ends within a block.
func (f *inflater) inflate(dst, history []byte, limit int64, tail int) ([]byte, error) {
	start := len(dst)
	f.blocks, f.tooManyBlocks = 0, false
	// A block that calls itself the last ends the stream, but not always the message (section
	// 7.2.3.4).
	for streams := 0; f.in.Len() > tail; streams++ {
		if streams == maxStreams {
			return dst, ErrInvalidDeflate
		}
		context := history
		if len(dst) > start {
			context = AppendHistory(bytes.Clone(history), dst[start:], MaxWindowBits)
		}
		f.before = int64(len(dst) - start)
		if err := f.reset(context); err != nil {
			return dst, ErrInvalidDeflate
		}
		var err error
		if dst, err = f.read(dst, start, limit); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// read inflates one stream to its end; its errors are those of inflate.
func (f *inflater) read(dst []byte, start int, limit int64) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			grown := make([]byte, len(dst), f.room(len(dst), start, limit))
			copy(grown, dst)
			dst = grown
		}
		n, err := f.flate.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case f.tooManyBlocks:
			return dst, ErrInvalidDeflate
		case limit > 0 && int64(len(dst)-start) > limit:
			return dst, ErrMessageTooLarge
		case errors.Is(err, io.EOF):
			return dst, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return dst, err
		case err != nil:
			return dst, ErrInvalidDeflate
		}
	}
}

// room returns a larger capacity for a buffer of n bytes, no more than shows that limit is
// exceeded.
func (f *inflater) room(n, start int, limit int64) int {
	room := max(2*n, n+minInflateBytes)
	if limit > 0 && int64(room) > int64(start)+limit+1 {
		room = max(start+int(limit)+1, n+1)
	}
	return room
}

func (f *inflater) release() {
	f.in.Reset(nil)
	if cap(f.buf) > maxInflaterBytes {
		f.buf = nil
	}
	inflaters.Put(f)
}

// ValidText reports whether an inflated message of kind op may be one: a text is UTF-8.
func ValidText(op Opcode, payload []byte) bool { return op != OpText || utf8.Valid(payload) }

// ValidTextStart reports whether the first part of a text may be one: it may end within a rune.
func ValidTextStart(part []byte) bool {
	var text utf8State
	return text.write(part)
}
