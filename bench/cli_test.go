//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

func TestHelp(t *testing.T) {
	for _, name := range commandNames() {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.ErrorIs(t, bench(t.Context(), []string{name, "-h"}, &out), flag.ErrHelp)
			h := helpOf(name)
			require.NotEmpty(t, h.Help)
			assert.Contains(t, out.String(), h.Help)
			example := strings.Fields(h.Example)
			assert.Equal(t, name, example[1])
			_, err := parse(example[1:], &out)
			require.NoError(t, err, "the example works")
			own, common, _ := strings.Cut(out.String(), "flags of all commands:")
			assert.Contains(t, own, "flags of "+name+":")
			if name != "report" {
				assert.Contains(t, common, "-client-loops")
				assert.NotContains(t, own, "-client-loops")
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		var out bytes.Buffer
		require.ErrorIs(t, bench(t.Context(), []string{"-h"}, &out), flag.ErrHelp)
		for _, name := range commandNames() {
			assert.Contains(t, out.String(), "  "+name+" ")
		}
	})
}

func TestWrongUse(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "usage: bench COMMAND",
		"ehco":                 "did you mean echo?",
		"lat":                  "did you mean latency?",
		"xyzzy":                `no command "xyzzy" (bench -h lists all)`,
		"echo -infligt 3":      "did you mean -inflight?",
		"echo -jsno":           "did you mean -json?",
		"echo -sweep":          "-sweep is a flag of fanout",
		"-duratoin 1s echo":    "did you mean -duration?",
		"echo -duration 5":     `invalid value "5" for flag -duration`,
		"echo quickly":         `what is "quickly"?`,
		"echo -size 3":         "-size is 3",
		"report":               "which files?",
		"report -rounds 3":     "-rounds is a flag of",
		"echo -frobnicate":     "unknown flag -frobnicate (bench echo -h lists all)",
		"echo -json -- faster": `what is "faster"?`,
	} {
		t.Run(line, func(t *testing.T) {
			var out bytes.Buffer
			err := bench(t.Context(), strings.Fields(line), &out)
			require.ErrorAs(t, err, new(*usageError))
			assert.Contains(t, err.Error(), want)
			assert.Empty(t, out.String())
		})
	}
}

// TestFlagsPrecedeCommand asserts that flags before and behind the command's name
// count, and that "all" passes each flag to the commands that have it.
func TestFlagsPrecedeCommand(t *testing.T) {
	inv, err := parse(strings.Fields("-duration 3s -loops 2 -steps 5,10 echo -conns 7"), io.Discard)
	require.NoError(t, err)
	require.Len(t, inv.runs, 1)
	echo := inv.runs[0].Runner.(*workload.EchoRun)
	assert.Equal(t, 7, echo.Conns)
	assert.Equal(t, 3*time.Second, echo.Duration)
	assert.Equal(t, 2, inv.session.Loops)

	inv, err = parse(strings.Fields("-conns 7 all -steps 5,10 -json"), io.Discard)
	require.NoError(t, err)
	assert.True(t, inv.json)
	var names []string
	for _, r := range inv.runs {
		names = append(names, r.Name)
		switch o := r.Runner.(type) {
		case *workload.EchoRun:
			assert.Equal(t, 7, o.Conns)
		case *workload.FanoutRun:
			assert.Equal(t, 7, o.Conns)
		case *workload.IdleRun:
			assert.Equal(t, "5,10", o.Steps)
		}
	}
	assert.Equal(t, strings.Fields("idle echo fanout latency mixed slow tls storm drain fair"), names)
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"echo", "ehco", 2}, {"a", "b", 1}} {
		assert.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
		assert.Equal(t, c.want, distance(c.b, c.a), "%s %s", c.b, c.a)
	}
}

func TestCommandLine(t *testing.T) {
	assert.Equal(t, `bench echo -html 'my report.html' '' 'it'\''s' -size=16`,
		commandLine([]string{"echo", "-html", "my report.html", "", "it's", "-size=16"}))
}

// TestReport makes a report of two runs, and compares it with the page of the run
// itself.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, args := range [][]string{
		{"latency", "-conns", "20", "-rate", "200", "-duration", "100ms", "-warmup", "10ms"},
		{"idle", "-path", "native", "-steps", "5,10", "-quiet", "1ms"},
	} {
		name := filepath.Join(dir, args[0])
		var out bytes.Buffer
		require.NoError(t, bench(t.Context(), append(args, "-json", "-html", name+".html"), &out))
		require.NoError(t, os.WriteFile(name+".json", out.Bytes(), 0o600))
		files = append(files, name+".json")

		again := name + "-again.html"
		require.NoError(t, bench(t.Context(), []string{"report", name + ".json", "-html", again}, &out))
		assert.Equal(t, read(t, name+".html"), read(t, again))
		assert.Contains(t, read(t, again), "<svg ")

		var doc struct {
			CommandLine string `json:"command_line"`
			Started     time.Time
			Machine     result.Machine
		}
		require.NoError(t, json.Unmarshal([]byte(read(t, name+".json")), &doc))
		assert.Equal(t, commandLine(append(args, "-json", "-html", name+".html")), doc.CommandLine)
		assert.WithinDuration(t, time.Now(), doc.Started, time.Minute)
		assert.NotEmpty(t, doc.Machine.Modules["github.com/panjf2000/gnet/v2"])
	}
	var out bytes.Buffer
	merged := filepath.Join(dir, "merged.html")
	require.NoError(t, bench(t.Context(), []string{"report", files[0], "-html", merged, files[1]}, &out))
	assert.Empty(t, out.String())
	page := read(t, merged)
	assert.Contains(t, page, "bench latency")
	assert.Contains(t, page, "bench idle")
	assert.Equal(t, 2, strings.Count(page, "<article"))

	require.NoError(t, bench(t.Context(), append([]string{"report"}, files...), &out))
	assert.Contains(t, out.String(), "publishes/s")
	out.Reset()
	require.NoError(t, bench(t.Context(), append([]string{"report", "-markdown"}, files...), &out))
	assert.Contains(t, out.String(), "| path | connections |")

	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	assert.Empty(t, left, "nothing temporary is left")
}

func TestReportFails(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(bad, []byte("no JSON"), 0o600))
	for name, args := range map[string][]string{
		"no such file":      {"report", filepath.Join(dir, "none.json")},
		"not JSON":          {"report", bad},
		"no such directory": {"idle", "-html", filepath.Join(dir, "none", "a.html")},
	} {
		t.Run(name, func(t *testing.T) {
			err := bench(t.Context(), args, new(bytes.Buffer))
			require.Error(t, err)
			assert.NotErrorAs(t, err, new(*usageError))
		})
	}
	t.Run("a run that fails leaves the file as it was", func(t *testing.T) {
		name := filepath.Join(dir, "kept.html")
		require.NoError(t, os.WriteFile(name, []byte("kept"), 0o600))
		require.Error(t, bench(t.Context(), []string{"echo", "-conns", "100000000", "-html", name}, new(bytes.Buffer)))
		assert.Equal(t, "kept", read(t, name))
	})
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}
