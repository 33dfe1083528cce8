package codec

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
)

// endOfDeflate is a final block, which stops the inflater.
const endOfDeflate = "\x01\x00\x00\xff\xff"

// inflaters holds decompressors between uses.
var inflaters = sync.Pool{New: func() any {
	z := new(Inflater)
	z.flate = flate.NewReader(&z.in)
	z.countBlocks = flate.WithEobCallback(z.endBlock)
	return z
}}

// Inflater inflates one message, in one or more steps (RFC 7692 section 7.2.2). It comes from
// NewInflater and ends with Close. Not safe for concurrent use.
type Inflater struct {
	flate       io.ReadCloser
	countBlocks flate.ReaderOpt // calls endBlock
	in          bytes.Reader
	buf         []byte // the compressed message, with its tail

	history []byte // borrowed
	limit   int64
	tail    int    // bytes at the end of in that may be left unread
	part    bool   // the message is not whole
	start   int    // the message's place in out
	out     []byte // the caller's bytes and the message so far

	inStream      bool
	streams       int
	blocks        int   // so far
	before        int64 // bytes that the earlier streams have inflated to
	tooManyBlocks bool
}

// The limits on blocks. A block can cost much more than its bytes: the tables of a block of 12
// bytes, which may inflate to nothing, take 3 µs to build. A message may have freeBlocks, and
// one more for each minBlockBytes of inflated data. The smallest blocks of zlib (memLevel 1) hold
// 127 symbols, and each flush of a compressor within a message makes two blocks.
//
// In messages up to uncounted bytes the blocks are not counted, because the count would make
// small messages cost a tenth more. Their few blocks take 1 ms at most.
const (
	freeBlocks    = 512
	minBlockBytes = 100
	uncounted     = 4 << 10
)

// maxInflaterBytes bounds the buffer of an inflater in the pool.
const maxInflaterBytes = 64 << 10

// maxStreams is the greatest number of final blocks in a message. A final block costs more than
// its two bytes suggest. Honest clients send one.
const maxStreams = 64

// minInflateBytes is the least space for inflated data, in bytes.
const minInflateBytes = 4 << 10

// NewInflater begins to inflate the message whose compressed form is payload. It appends the
// message to dst, which belongs to the Inflater until Close. payload is copied. history is the
// earlier data of the client, empty without context takeover. It is borrowed until Close. limit
// is the most bytes of the message; zero and negative mean no limit. Safe for concurrent use.
func NewInflater(dst, payload, history []byte, limit int64) *Inflater {
	z := newInflater(dst, history, limit)
	if len(payload) == 0 {
		return z
	}
	z.buf = append(append(append(z.buf[:0], payload...), deflateTail...), endOfDeflate...)
	z.tail = len(deflateTail) + len(endOfDeflate)
	z.in.Reset(z.buf)
	return z
}

// NewPartInflater is NewInflater for the first part of a message. It inflates the part, perhaps
// without its last symbols, because the inflater looks ahead by up to four bytes. Step then
// returns only errors that the rest of the message cannot mend. Safe for concurrent use.
func NewPartInflater(dst, payload, history []byte, limit int64) *Inflater {
	z := newInflater(dst, history, limit)
	z.part = true
	z.buf = append(z.buf[:0], payload...)
	z.in.Reset(z.buf)
	return z
}

func newInflater(dst, history []byte, limit int64) *Inflater {
	z := inflaters.Get().(*Inflater)
	z.out, z.start, z.history, z.limit = dst, len(dst), history, limit
	return z
}

// Step inflates until the message is whole or most has passed, and reports whether it is done.
// It checks the time after each block or 32 KiB, so it may take a few milliseconds longer. It
// does not check the time in the last 4 KiB of the payload. Step returns ErrMessageTooLarge as
// soon as there are more bytes than the limit. It returns ErrInvalidDeflate if the payload is no
// compressed message, or has many more blocks than its length needs. After an error it is done.
func (z *Inflater) Step(most time.Duration) (done bool, err error) {
	var began time.Time
	if z.in.Len() > uncounted {
		began = time.Now()
	}
	for {
		// A final block ends the stream, but not always the message (section 7.2.3.4).
		if !z.inStream {
			if z.in.Len() <= z.tail {
				return true, nil
			}
			if err := z.beginStream(); err != nil {
				return true, err
			}
		}
		err := z.read()
		switch {
		case z.part && errors.Is(err, io.ErrUnexpectedEOF):
			return true, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return true, ErrInvalidDeflate
		case err != nil:
			return true, err
		case !z.inStream && z.in.Len() <= z.tail:
			return true, nil
		}
		if !began.IsZero() && time.Since(began) > most {
			return false, nil
		}
	}
}

// Bytes returns dst with the inflated part of the message. It belongs to the Inflater until
// Close, and to the caller afterwards.
func (z *Inflater) Bytes() []byte { return z.out }

// Close ends the use of z.
func (z *Inflater) Close() {
	z.in.Reset(nil)
	if cap(z.buf) > maxInflaterBytes {
		z.buf = nil
	}
	*z = Inflater{flate: z.flate, countBlocks: z.countBlocks, in: z.in, buf: z.buf}
	inflaters.Put(z)
}

// Inflate inflates a whole message like NewInflater, and returns dst with the message. It
// returns the errors of Step. payload and history are borrowed. Safe for concurrent use.
func Inflate(dst, payload, history []byte, limit int64) ([]byte, error) {
	z := NewInflater(dst, payload, history, limit)
	defer z.Close()
	_, err := z.Step(noLimit)
	return z.Bytes(), err
}

const noLimit = time.Duration(math.MaxInt64)

// InflateStart is Inflate for the first part of a message, like NewPartInflater.
func InflateStart(dst, payload, history []byte, limit int64) ([]byte, error) {
	z := NewPartInflater(dst, payload, history, limit)
	defer z.Close()
	_, err := z.Step(noLimit)
	return z.Bytes(), err
}

// resumable has the method of flate's decompressor that resets it and keeps its scratch memory.
type resumable interface {
	ResetCP(r io.Reader, cp flate.InflateCheckpoint) error
}

// beginStream begins a stream at the start of z.in, with the earlier data as context.
func (z *Inflater) beginStream() error {
	if z.streams++; z.streams > maxStreams {
		return ErrInvalidDeflate
	}
	context := z.history
	if len(z.out) > z.start {
		context = AppendHistory(bytes.Clone(z.history), z.out[z.start:], MaxWindowBits)
	}
	z.before = int64(len(z.out) - z.start)
	z.inStream = true
	if err := z.flate.(resumable).ResetCP(&z.in, flate.InflateCheckpoint{Window: context}); err != nil {
		return ErrInvalidDeflate
	}
	if z.in.Len() > uncounted {
		setOption(z.countBlocks, z.flate)
		setOption(flate.WithPartialBlock(), z.flate)
	}
	return nil
}

// setOption applies an option to flate's decompressor, whose type is not exported. A reset drops
// the options, and a new decompressor for each message would cost 50 KiB.
func setOption[T any](option func(*T), reader io.Reader) { option(any(reader).(*T)) }

// endBlock counts a block, and ends the input if there are too many blocks.
func (z *Inflater) endBlock(cp flate.InflateCheckpoint) {
	z.blocks++
	if int64(z.blocks) > freeBlocks+(z.before+cp.UncompressedOffset)/minBlockBytes {
		z.tooManyBlocks = true
		z.in.Reset(nil)
	}
}

// read inflates a block, or 32 KiB. It returns io.ErrUnexpectedEOF if the input ends within a
// block.
func (z *Inflater) read() error {
	if len(z.out) == cap(z.out) {
		grown := make([]byte, len(z.out), z.nextCap())
		copy(grown, z.out)
		z.out = grown
	}
	n, err := z.flate.Read(z.out[len(z.out):cap(z.out)])
	z.out = z.out[:len(z.out)+n]
	switch {
	case z.tooManyBlocks:
		return ErrInvalidDeflate
	case z.limit > 0 && int64(len(z.out)-z.start) > z.limit:
		return ErrMessageTooLarge
	case errors.Is(err, io.EOF):
		z.inStream = false
		return nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return ErrInvalidDeflate
	}
	return err
}

// nextCap returns a larger capacity for z.out: at most one byte more than the limit, because
// that byte shows that the message exceeds it.
func (z *Inflater) nextCap() int {
	n := len(z.out)
	next := max(2*n, n+minInflateBytes)
	if z.limit > 0 && int64(next) > int64(z.start)+z.limit+1 {
		next = max(z.start+int(z.limit)+1, n+1)
	}
	return next
}

// ValidText reports whether payload may be an inflated message of kind op: a text is UTF-8.
func ValidText(op Opcode, payload []byte) bool { return op != OpText || utf8.Valid(payload) }

// ValidTextStart reports whether part may be the first part of a text. It may end within a rune.
func ValidTextStart(part []byte) bool {
	var text utf8State
	return text.write(part)
}
