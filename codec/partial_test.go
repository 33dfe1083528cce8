package codec_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func TestDecoderWholeFrameInPlace(t *testing.T) {
	b := join(frame(codec.OpText, true, "hello"), frame(codec.OpPing, true, "p"))
	var d codec.Decoder
	n, m, ok, err := d.Next(b, 0)
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, 6+5, n)
	assert.Equal(t, "hello", string(m.Payload))
	assert.Same(t, &b[6], &m.Payload[0], "no copy")
	assert.Equal(t, len(m.Payload), cap(m.Payload), "an append cannot reach the next frame")
	assert.False(t, d.HasPartial())
}

func TestDecoderReleasesPartialState(t *testing.T) {
	fragments := join(frame(codec.OpBinary, false, "abc"), frame(codec.OpContinuation, true, "de"))
	t.Run("Done at a boundary", func(t *testing.T) {
		var d codec.Decoder
		n, _, ok, err := d.Next(fragments, 0)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, len(fragments), n)
		assert.True(t, d.HasPartial(), "the message lies in it")
		assert.Equal(t, 5, d.Buffered())
		d.Done()
		assert.False(t, d.HasPartial())
		assert.Zero(t, d.Buffered())
		d.Done()
	})
	t.Run("Next at a boundary", func(t *testing.T) {
		var d codec.Decoder
		b := join(fragments, frame(codec.OpText, true, "x"))
		n, _, _, _ := d.Next(b, 0)
		_, m, ok, err := d.Next(b[n:], 0)
		require.NoError(t, err)
		require.True(t, ok)
		assert.Equal(t, "x", string(m.Payload))
		assert.False(t, d.HasPartial())
	})
	t.Run("not Done within a message", func(t *testing.T) {
		stream := join(
			frame(codec.OpBinary, false, "abc"), frame(codec.OpPing, true, "pp"),
			frame(codec.OpContinuation, true, "de"),
		)
		for at := 1; at < len(stream); at++ {
			var d codec.Decoder
			_, err := decode(&d, stream[:at], 0, whole)
			require.NoError(t, err)
			require.True(t, d.HasPartial(), "cut at %d", at)
			d.Done()
			require.True(t, d.HasPartial(), "cut at %d", at)
			d.Release()
			require.False(t, d.HasPartial())
			d.Release()
			events, err := decode(&d, fragments, 0, bytewise)
			require.NoError(t, err)
			require.Equal(t, []event{{codec.OpBinary, "abcde"}}, events, "reusable after Release at %d", at)
		}
	})
	t.Run("Buffered counts message and control frame", func(t *testing.T) {
		var d codec.Decoder
		for _, step := range []struct {
			b    []byte
			want int
		}{
			{frame(codec.OpBinary, false, "abc"), 3},
			{frame(codec.OpPing, true, "pppp")[:8], 5},
			{frame(codec.OpPing, true, "pppp")[8:], 7},
			{frame(codec.OpContinuation, true, "de")[:1], 3},
			{frame(codec.OpContinuation, true, "de")[1:7], 4},
		} {
			_, err := decode(&d, step.b, 0, whole)
			require.NoError(t, err)
			assert.Equal(t, step.want, d.Buffered())
		}
	})
	t.Run("empty input", func(t *testing.T) {
		var d codec.Decoder
		n, _, ok, err := d.Next(nil, 0)
		require.NoError(t, err)
		assert.False(t, ok)
		assert.Zero(t, n)
		assert.False(t, d.HasPartial())
	})
}

func TestDecoderPoolIsBounded(t *testing.T) {
	assert.Equal(t, codec.MaxPooledBytes, codec.PooledCap(codec.MaxPooledBytes), "kept")
	assert.Zero(t, codec.PooledCap(codec.MaxPooledBytes+1), "dropped")
}

func TestDecoderMemoryFollowsBytes(t *testing.T) {
	var d codec.Decoder
	defer d.Release()
	_, err := decode(&d, announce(codec.OpBinary, true, 1<<40), 0, whole)
	require.NoError(t, err)
	require.LessOrEqual(t, d.AssemblyCap(), codec.MaxPooledBytes)
	chunk, sent := make([]byte, 10_000), 0
	for range 100 {
		_, _, ok, err := d.Next(bytes.Clone(chunk), 0)
		require.NoError(t, err)
		require.False(t, ok)
		sent += len(chunk)
		require.Equal(t, sent, d.Buffered())
		require.LessOrEqual(t, d.AssemblyCap(), max(3*sent, codec.MaxPooledBytes))
	}
}

func TestDecoderAssemblyIsNotLargerThanTheMessage(t *testing.T) {
	stream := frame(codec.OpBinary, true, strings.Repeat("x", 300_000))
	var d codec.Decoder
	_, err := decode(&d, stream[:len(stream)-1], 0, chops(rand.New(rand.NewPCG(3, 4)), 5000))
	require.NoError(t, err)
	assert.LessOrEqual(t, d.AssemblyCap(), 300_000)
	d.Release()
}

// TestDecoderTinyFragments sends a message in fragments of one byte, because a buffer that grew
// with each fragment would be copied each time.
func TestDecoderTinyFragments(t *testing.T) {
	const fragments = 200_000
	var d codec.Decoder
	grown, capacity := 0, 0
	for i := range fragments {
		op := codec.OpContinuation
		if i == 0 {
			op = codec.OpBinary
		}
		_, _, ok, err := d.Next(frame(op, i == fragments-1, "x"), 0)
		require.NoError(t, err)
		require.Equal(t, i == fragments-1, ok)
		if d.AssemblyCap() != capacity {
			grown, capacity = grown+1, d.AssemblyCap()
		}
	}
	assert.Equal(t, fragments, d.Buffered())
	assert.LessOrEqual(t, grown, 10)
	d.Done()
	assert.Zero(t, d.AssemblyCap())
}
