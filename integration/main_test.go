package integration_test

import (
	"flag"
	"testing"

	"github.com/qi-realtime/ws/internal/leak"
)

// TestMain lets more tests run in parallel than there are processors, because they mostly wait for
// timers. A test that counts goroutines, descriptors or bytes of the process, or needs an answer
// within a short time, does not run in parallel.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the command line overrides it
	leak.Main(m)
}
