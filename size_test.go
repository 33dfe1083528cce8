package ws_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws"
)

// Each idle connection costs a Client.
func TestClientSize(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(ws.Client{}), uintptr(192))
	assert.LessOrEqual(t, ws.LimitedClientSize, uintptr(224), "with a rate limit")
}
