package engine_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestALateEnrollIsTriedAgainWithoutDescriptors asserts that a connection of a
// slow loop stays open while the descriptors run out.
func TestALateEnrollIsTriedAgainWithoutDescriptors(t *testing.T) {
	s := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	peer, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = peer.Close() })
	accepted, err := l.Accept()
	require.NoError(t, err)
	file, err := accepted.(*net.TCPConn).File()
	require.NoError(t, err)
	require.NoError(t, s.Shards()[0].EnrollLate(int(file.Fd()), unix.EMFILE))
	require.NoError(t, file.Close())
	require.NoError(t, accepted.Close())
	c := newClient(t, peer)
	c.raw(upgradeRequest)
	require.Equal(t, 101, c.response())
}
