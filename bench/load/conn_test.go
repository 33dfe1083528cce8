//go:build linux

package load

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSourceAddresses asserts that connections beyond the first 20,000 come from
// addresses of their own, and that these work.
func TestSourceAddresses(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	to := &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for n, want := range map[int]string{
		0: "127.0.0.1", 19_999: "127.0.0.1", 20_000: "127.0.0.2",
		1_000_000: "127.0.0.51", 20_000 * 255: "127.0.1.0",
	} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, bindSource(fd, n))
		require.NoError(t, unix.Connect(fd, to))
		c, err := ln.Accept()
		require.NoError(t, err)
		assert.Equal(t, want, c.RemoteAddr().(*net.TCPAddr).IP.String())
		require.NoError(t, c.Close())
		require.NoError(t, unix.Close(fd))
	}
}

// TestComeLater asserts that refused connections come again when the answer says.
func TestComeLater(t *testing.T) {
	refused := func(l *Loop, head string) {
		l.toOpen++ // by drop
		l.comeLater([]byte("HTTP/1.1 503 Service Unavailable\r\n" + head + "\r\nConnection: close"))
	}
	l := &Loop{Retry: true, Due: Never}
	refused(l, "Retry-After: 7")
	refused(l, "Retry-After: 5")
	assert.Zero(t, l.toOpen)
	assert.Equal(t, l.later[0], l.Due)
	assert.InDelta(t, 2e9, l.later[1]-l.later[0], 1e9)
	refused(l, "X-Retry: 5")
	assert.Equal(t, 1, l.toOpen, "no time is at once")
	first, second := l.later[0], l.later[1]
	assert.Equal(t, second, l.Tick(first))
	assert.Equal(t, 2, l.toOpen)
	assert.Equal(t, int64(Never), l.Tick(second))
	assert.Equal(t, 3, l.toOpen)
	assert.Nil(t, l.Tick)

	l = &Loop{Retry: true, Tick: func(int64) int64 { return Never }}
	refused(l, "Retry-After: 5")
	assert.Equal(t, 1, l.toOpen, "the traffic has a Tick of its own")
}
