package presence_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/presence"
)

var (
	aDelta = presence.Delta{
		Prev: 3, Version: 300, Clients: 4, Joins: []string{"a", strings.Repeat("b", 256)}, Leaves: []string{"c"},
	}
	aPage = presence.Page{Room: "r", Version: 7, Clients: 2, Index: 1, Last: true, Users: []string{"a", "b"}}
)

// TestMessagesAreWhole holds that each message survives, and that no part of it is one.
func TestMessagesAreWhole(t *testing.T) {
	var d presence.Delta
	encoded := aDelta.Append(nil)
	require.NoError(t, d.Decode(encoded))
	assert.Equal(t, aDelta, d)
	for i := range encoded {
		assert.ErrorIs(t, d.Decode(encoded[:i]), presence.ErrMalformed, "the first %d bytes", i)
	}
	var p presence.Page
	encoded = aPage.Append(nil)
	require.NoError(t, p.Decode(encoded))
	assert.Equal(t, aPage, p)
	for i := range encoded {
		assert.ErrorIs(t, p.Decode(encoded[:i]), presence.ErrMalformed, "the first %d bytes", i)
	}
}

func TestMessagesAreRefused(t *testing.T) {
	for name, d := range map[string]presence.Delta{
		"version goes back": {Prev: 3, Version: 3}, "long key": {Version: 1, Joins: []string{strings.Repeat("k", 257)}},
		"empty key": {Version: 1, Leaves: []string{""}}, "very many clients": {Version: 1, Clients: 1 << 41},
	} {
		var got presence.Delta
		assert.ErrorIs(t, got.Decode(d.Append(nil)), presence.ErrMalformed, name)
	}
	var p presence.Page
	zero := presence.Page{Room: "r"}
	assert.ErrorIs(t, p.Decode(zero.Append(nil)), presence.ErrMalformed)
	assert.ErrorIs(t, p.Decode(append(aPage.Append(nil), 0)), presence.ErrMalformed, "bytes behind it")
}

// FuzzMessages holds that bytes are refused, or are a message that encodes to the same message again.
func FuzzMessages(f *testing.F) {
	f.Add(aDelta.Append(nil))
	f.Add(aPage.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, dAgain presence.Delta
		if d.Decode(b) == nil {
			require.NoError(t, dAgain.Decode(d.Append(nil)))
			assert.Equal(t, d, dAgain)
		}
		var p, pAgain presence.Page
		if p.Decode(b) == nil {
			require.NoError(t, pAgain.Decode(p.Append(nil)))
			assert.Equal(t, p, pAgain)
		}
	})
}
