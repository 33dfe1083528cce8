//go:build linux && perf

package workload

import (
	"os"
	"testing"

	"github.com/qi-realtime/ws/bench/server"
)

// TestMain is also the server processes, which are this program with other
// arguments.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := server.Serve(os.Args[2], os.Stdin, os.Stdout, nil); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}
