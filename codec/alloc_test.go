//go:build !race

package codec_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// TestAllocations checks that the functions of the hot paths allocate nothing, and NewFrame once.
func TestAllocations(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 512)
	dst := make([]byte, 0, len(payload)+codec.MaxHeaderSize)
	zeroKey := func(op codec.Opcode) []byte { return clientFrame(op, true, payload, [4]byte{}) }
	text, binary := zeroKey(codec.OpText), zeroKey(codec.OpBinary)
	ping := clientFrame(codec.OpPing, true, payload[:20], [4]byte{})
	stream := join(text, binary, ping)
	closing := codec.AppendClose(nil, codec.CloseNormal, "")[2:]
	partialHead := []byte("GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: webso")
	whole := []byte(sampleRequest)
	r, _, err := parse(whole)
	require.NoError(t, err)
	var parser codec.RequestParser
	var d codec.Decoder
	tests := []struct {
		name string
		want float64
		run  func()
	}{
		{"decode text", 0, func() { d.Next(text, 1024) }},
		{"decode binary", 0, func() { d.Next(binary, 1024) }},
		{"decode ping", 0, func() { d.Next(ping, 1024) }},
		{"decode three in one read", 0, func() {
			for b := stream; len(b) > 0; {
				n, _, _, _ := d.Next(b, 1024)
				b = b[n:]
			}
			d.Done()
		}},
		{"AppendFrame", 0, func() { codec.AppendFrame(dst, codec.OpBinary, payload) }},
		{"AppendClose", 0, func() { codec.AppendClose(dst, codec.CloseGoingAway, "going away") }},
		{"ParseClose", 0, func() { codec.ParseClose(closing) }},
		{"NewFrame", 1, func() { sink = codec.NewFrame(codec.OpBinary, payload) }},
		{"ParseRequest of a part", 0, func() { parse(partialHead) }},
		{"Parse: the head, the URL, a repeated name", 3, func() { _, _, _ = parser.Parse(whole, headLimits) }},
		{"AppendAccept", 1, func() { sink = codec.AppendAccept(nil, r, codec.Accept{}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.InDelta(t, tt.want, testing.AllocsPerRun(200, tt.run), 0)
		})
	}
}

// sink keeps a result off the stack.
var sink []byte
