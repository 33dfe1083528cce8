package natsbroker_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

func TestFailedWriteEndsTheConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	c := natsbroker.NewConn(ours)
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(-time.Second)))
	n, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
	_, err = theirs.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, theirs.Close())
}
