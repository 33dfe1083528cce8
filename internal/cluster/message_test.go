package cluster_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/cluster"
)

var messages = map[string]cluster.Message{
	"plain": {Kind: cluster.Publish, Origin: []byte("n1"), Payload: []byte("hello")},
	"empty": {Kind: cluster.Publish, Origin: []byte("n1"), Payload: []byte{}},
	"whole": {
		Kind: cluster.Publish, Binary: true, High: true, TTL: time.Second, Origin: []byte("n1"),
		Stamp: cluster.Stamp{Round: 7, Number: 1 << 31, At: 1<<32 - 1, Before: 9}, Key: []byte("key"),
		Exclude: []byte("client"), Payload: bytes.Repeat([]byte{0xff}, 300),
	},
	"long parts": {
		Kind: cluster.Publish, Origin: bytes.Repeat([]byte("n"), cluster.MaxID),
		Key: bytes.Repeat([]byte("k"), 1000), Payload: []byte("p"),
	},
}

func TestMessageRoundTrip(t *testing.T) {
	for name, want := range messages {
		t.Run(name, func(t *testing.T) {
			encoded := want.Append([]byte("before"))[len("before"):]
			var got cluster.Message
			require.NoError(t, got.Decode(encoded))
			assert.Equal(t, want, got)
			for i := range len(encoded) - len(want.Payload) {
				assert.ErrorIs(t, got.Decode(encoded[:i]), cluster.ErrMalformed, "the first %d bytes", i)
			}
		})
	}
}

func TestMessageRefuses(t *testing.T) {
	for name, b := range map[string]string{
		"nothing":          "",
		"other version":    "\x02\x01\x00\x01nx",
		"no kind":          "\x01\x00\x00\x01nx",
		"unknown kind":     "\x01\xff\x00\x01nx",
		"unknown flag":     "\x01\x01\x40\x01nx",
		"no origin":        "\x01\x01\x00\x00x",
		"long origin":      "\x01\x01\x00\x41" + string(bytes.Repeat([]byte("n"), 65)),
		"endless length":   "\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"huge length":      "\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7fx",
		"TTL 0":            "\x01\x01\x04\x00\x00\x00\x00\x00\x00\x00\x00\x01nx",
		"negative TTL":     "\x01\x01\x04\xff\x00\x00\x00\x00\x00\x00\x00\x01nx",
		"round 0":          "\x01\x01\x20\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x01nx",
		"truncated stamp":  "\x01\x01\x20\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x01nx",
		"truncated client": "\x01\x01\x10\x01n\x05abc",
	} {
		t.Run(name, func(t *testing.T) {
			var m cluster.Message
			assert.ErrorIs(t, m.Decode([]byte(b)), cluster.ErrMalformed)
		})
	}
}

func TestAge(t *testing.T) {
	m := cluster.Message{Kind: cluster.Publish, Origin: []byte("n"), TTL: 3 * time.Second, Key: []byte("k")}
	b := m.Append(nil)
	require.True(t, cluster.Age(b, time.Second))
	require.NoError(t, m.Decode(b))
	assert.Equal(t, 2*time.Second, m.TTL)
	assert.False(t, cluster.Age(b, 2*time.Second))
	forever := cluster.Message{Kind: cluster.Publish, Origin: []byte("n")}
	assert.True(t, cluster.Age(forever.Append(nil), time.Hour))
	negative := cluster.Message{Kind: cluster.Publish, Origin: []byte("n"), TTL: -1}
	assert.False(t, cluster.Age(negative.Append(nil), 0))
}

func TestSetStamp(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Second} {
		m := cluster.Message{Kind: cluster.Publish, TTL: ttl, Stamp: cluster.Stamp{Round: 1}, Origin: []byte("n")}
		m.Payload = []byte("p")
		b := m.Append(nil)
		m.Stamp = cluster.Stamp{Round: 2, Number: 3, At: 4, Before: 5}
		cluster.SetStamp(b, m.Stamp)
		var got cluster.Message
		require.NoError(t, got.Decode(b))
		assert.Equal(t, m, got)
	}
}

// FuzzMessage holds that bytes are refused, or are a message that encodes to the same message again.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again cluster.Message
		if m.Decode(b) != nil {
			return
		}
		require.NoError(t, again.Decode(m.Append(nil)))
		assert.Equal(t, m, again)
		assert.LessOrEqual(t, len(m.Payload)+len(m.Origin)+len(m.Key)+len(m.Exclude), len(b))
	})
}

// TestStoredPayload holds that a stored notification comes back with its place, and that other bytes are
// refused or harmless.
func TestStoredPayload(t *testing.T) {
	for _, place := range []int{1, 5, 300} {
		b := cluster.AppendStored([]byte("before"), []byte(`{"a":1}`), place)[len("before"):]
		notify, got, ok := cluster.CutStored(b)
		assert.Equal(t, place <= len(b), ok) // a place outside of the message
		if ok {
			assert.Equal(t, `{"a":1}`, string(notify))
			assert.Equal(t, place, got)
		}
	}
	for _, bad := range []string{"", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x7f{}"} {
		_, _, ok := cluster.CutStored([]byte(bad))
		assert.False(t, ok, "%q", bad)
	}
}
