// Package cluster_test lets the parts of a cluster fail: processes of nodes and of brokers' servers
// are killed, stopped, cut off and restarted, while clients check all that they read. Its binary is
// the test, a node and a NATS server.
package cluster_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is the longest time that a test waits for one condition.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleNode:
		runNode(os.Getenv(configVariable))
	case roleNATS:
		runNATS(os.Getenv(configVariable))
	default:
		os.Exit(m.Run())
	}
}

// eventually waits until condition holds.
func eventually(t *testing.T, condition func() bool, msgAndArgs ...any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); <-time.After(10 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), msgAndArgs...)
	}
}
