package conformance_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
)

// window inflates messages (RFC 1951) and fails at a match that reaches back beyond the window. It
// is slow and obvious. history holds the earlier bytes for matches.
type window struct {
	size    int
	history []byte

	in    []byte
	bit   int // the next bit of in
	out   []byte
	begin int // where the message begins in out
}

var errShort = errors.New("deflate data ends early")

// message inflates one message (RFC 7692 section 7.2.2). The server ends no message with a final
// block.
func (z *window) message(payload string) (string, error) {
	if z.size == 1<<15 && len(payload) > 20_000 {
		return z.large(payload)
	}
	z.in, z.bit = []byte(payload+"\x00\x00\xff\xff"), 0
	z.out = append([]byte(nil), z.history...)
	z.begin = len(z.out)
	for z.bit < 8*len(z.in) {
		if err := z.block(); err != nil {
			return "", err
		}
	}
	z.history = z.out[max(0, len(z.out)-1<<15):]
	return string(z.out[z.begin:]), nil
}

// large is message for the largest window, with the faster standard library.
func (z *window) large(payload string) (string, error) {
	const tail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"
	in := bytes.NewReader([]byte(payload + tail))
	out, err := io.ReadAll(flate.NewReaderDict(in, z.history))
	if err == nil && in.Len() > 0 {
		err = errors.New("a final block")
	}
	z.history = append(z.history, out...)
	z.history = z.history[max(0, len(z.history)-1<<15):]
	return string(out), err
}

func (z *window) bits(n int) (int, error) {
	v := 0
	for i := range n {
		if z.bit >= 8*len(z.in) {
			return 0, errShort
		}
		v |= int(z.in[z.bit/8]>>(z.bit%8)&1) << i
		z.bit++
	}
	return v, nil
}

func (z *window) block() error {
	head, err := z.bits(3)
	switch {
	case err != nil:
		return err
	case head&1 != 0:
		return errors.New("a final block")
	case head == 0:
		return z.stored()
	case head == 2:
		var lit, dist [288]int
		for i := range lit {
			lit[i] = 8
			if i >= 144 && i < 256 {
				lit[i] = 9
			} else if i >= 256 && i < 280 {
				lit[i] = 7
			}
		}
		for i := range 30 {
			dist[i] = 5
		}
		return z.compressed(newHuffman(lit[:]), newHuffman(dist[:30]))
	case head == 4:
		return z.dynamic()
	}
	return errors.New("block of type 3")
}

func (z *window) stored() error {
	z.bit = (z.bit + 7) / 8 * 8
	n, err := z.bits(16)
	if err != nil {
		return err
	}
	c, err := z.bits(16)
	if err != nil || n != c^0xFFFF || z.bit/8+n > len(z.in) {
		return errShort
	}
	z.out = append(z.out, z.in[z.bit/8:z.bit/8+n]...)
	z.bit += 8 * n
	return nil
}

func (z *window) dynamic() error {
	sizes, err := z.bits(14)
	if err != nil {
		return err
	}
	nlit, ndist, ncode := sizes&31+257, sizes>>5&31+1, sizes>>10+4
	order := [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	lengths := make([]int, 19)
	for i := range ncode {
		if lengths[order[i]], err = z.bits(3); err != nil {
			return err
		}
	}
	code := newHuffman(lengths)
	lengths = nil
	for len(lengths) < nlit+ndist {
		sym, err := z.symbol(code)
		if err != nil {
			return err
		}
		if sym < 16 {
			lengths = append(lengths, sym)
			continue
		}
		run := [3]struct{ bits, base int }{{2, 3}, {3, 3}, {7, 11}}[sym-16]
		n, err := z.bits(run.bits)
		if err != nil || sym == 16 && lengths == nil {
			return errShort
		}
		value := 0
		if sym == 16 {
			value = lengths[len(lengths)-1]
		}
		for range n + run.base {
			lengths = append(lengths, value)
		}
	}
	if len(lengths) > nlit+ndist {
		return errors.New("too many code lengths")
	}
	return z.compressed(newHuffman(lengths[:nlit]), newHuffman(lengths[nlit:]))
}

// huffman is a canonical code: the number of codes of each length, and their symbols in order.
type huffman struct {
	count   [16]int
	symbols []int
}

func newHuffman(lengths []int) *huffman {
	h := new(huffman)
	for n := 1; n < 16; n++ {
		for sym, length := range lengths {
			if length == n {
				h.count[n]++
				h.symbols = append(h.symbols, sym)
			}
		}
	}
	return h
}

func (z *window) symbol(h *huffman) (int, error) {
	code, first, index := 0, 0, 0
	for n := 1; n < 16; n++ {
		b, err := z.bits(1)
		if err != nil {
			return 0, err
		}
		code |= b
		if code-first < h.count[n] {
			return h.symbols[index+code-first], nil
		}
		index += h.count[n]
		first = (first + h.count[n]) << 1
		code <<= 1
	}
	return 0, errors.New("no such code")
}

func (z *window) compressed(lit, dist *huffman) error {
	lengths := [...]int{
		3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
		227, 258,
	}
	for {
		sym, err := z.symbol(lit)
		switch {
		case err != nil:
			return err
		case sym < 256:
			z.out = append(z.out, byte(sym))
			continue
		case sym == 256:
			return nil
		case sym > 285:
			return errors.New("no such length")
		}
		extra := 0
		if sym >= 265 && sym < 285 {
			extra = (sym - 261) / 4
		}
		n, err := z.bits(extra)
		if err != nil {
			return err
		}
		if err := z.match(lengths[sym-257]+n, dist); err != nil {
			return err
		}
	}
}

// match copies n bytes from within the window.
func (z *window) match(n int, dist *huffman) error {
	sym, err := z.symbol(dist)
	if err != nil || sym > 29 {
		return errShort
	}
	back := sym + 1
	if sym >= 4 {
		extra := sym/2 - 1
		more, err := z.bits(extra)
		if err != nil {
			return err
		}
		back = (2+sym&1)<<extra + 1 + more
	}
	if back > z.size || back > len(z.out) {
		return fmt.Errorf("a match %d bytes back, in a window of %d with %d bytes", back, z.size, len(z.out))
	}
	for range n {
		z.out = append(z.out, z.out[len(z.out)-back])
	}
	return nil
}
