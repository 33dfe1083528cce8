//go:build linux

package command

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProgress(t *testing.T) {
	now := time.Unix(1000, 0)
	var out bytes.Buffer
	run := func(p *progress) string {
		out.Reset()
		p.Expect(3, 5*time.Second)
		for i := range 4 {
			p.Step("echo, round %d", i+1)
			now = now.Add(10 * time.Second)
		}
		p.Done()
		p.Step("another")
		return out.String()
	}
	p := &progress{w: &out, now: func() time.Time { return now }}
	assert.Equal(t, "echo, round 1, about 15s left\necho, round 2, about 20s left\n"+
		"echo, round 3, about 10s left\necho, round 4\nanother\n", run(p))
	p = &progress{w: &out, now: p.now, terminal: true}
	lines := strings.Split(run(p), "\r\x1b[K")
	assert.Equal(t, []string{"", "echo, round 1, about 15s left"}, lines[:2])
	assert.Equal(t, []string{"", "another"}, lines[len(lines)-2:], "the line is cleared")

	out.Reset()
	run(nil)
	assert.Empty(t, out.String())
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	assert.Nil(t, NewProgress(f, false), "a file is no terminal")
	assert.NotNil(t, NewProgress(f, true))
}
