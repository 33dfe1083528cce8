package integration_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestNothingOnStandardOutput starts a process of its own with this test: a manager with a discarded
// log that goes through a storm, errors of all kinds and its end writes to neither output.
func TestNothingOnStandardOutput(t *testing.T) {
	const child = "WS_TEST_SILENT_SERVER"
	if os.Getenv(child) != "" {
		harness.OnBothModes(t, sufferInSilence)
		if !t.Failed() {
			os.Exit(0) // before the testing package prints its result
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s%s", &out, &errs)
	assert.Empty(t, out.String())
	assert.Empty(t, errs.String())
}

func sufferInSilence(t *testing.T, w harness.Way, mode ws.Option) {
	s := harness.Start(t, mode, ws.WithLogger(slog.New(slog.DiscardHandler)), ws.WithMaxConnections(50),
		ws.WithLoopStallThreshold(10*time.Millisecond), ws.WithBatchedWrites(ws.Off),
		ws.WithOnConnect(func(c *ws.Client) error {
			if strings.HasSuffix(c.ID, "refused") {
				return errors.New("refused")
			}
			return nil
		}), ws.WithAuthenticate(harness.ByQuery))
	require.NoError(t, s.Register("fails", func(*ws.Client, *ws.Message) error { return errors.New("oops") }))
	require.NoError(t, s.Register("panics", func(*ws.Client, *ws.Message) error { panic("oops") }))
	require.NoError(t, s.Register("holds", func(*ws.Client, *ws.Message) error {
		<-time.After(100 * time.Millisecond)
		return nil
	}))
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { panic("oops") })
	var storm sync.WaitGroup
	for range 100 {
		storm.Go(func() {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws", ""))
			if resp, _ := c.ReadResponse(); resp.StatusCode == 101 {
				c.Send(harness.Request("fails", "1", ""), harness.Request("panics", "2", ""), "no envelope")
				c.Next()
			}
			c.Abort()
		})
	}
	storm.Wait()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "clients stay")
	refused := s.Dial(w, "id=refused")
	refused.ExpectClose(1008)
	bad := s.DialTCP(w)
	bad.WriteRaw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	bad.ReadResponse()
	c := s.Dial(w)
	c.Send(harness.Request("holds", "3", ""))
	c.WriteRaw("\xff\xff\xff\xff") // no frame
	c.ExpectClose(1002)
	for _, c := range []*harness.Client{refused, bad, c} {
		c.Abort()
	}
	s.Stop()
}
