package control_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/bench/control"
)

func TestToken(t *testing.T) {
	for _, user := range []uint64{0, 7, 1 << 40} {
		got, ok := control.TokenUser(control.Token(user))
		assert.True(t, ok)
		assert.Equal(t, user, got)
	}
	token := control.Token(7)
	for _, forged := range []string{"", ".", "7", "8" + token[1:], token[:len(token)-2], token + "00", "x" + token} {
		_, ok := control.TokenUser(forged)
		assert.False(t, ok, forged)
	}
}
