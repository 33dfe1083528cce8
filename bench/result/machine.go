//go:build linux

package result

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/report"
)

// Machine describes the machine that made the numbers.
type Machine = report.Machine

// ThisMachine describes the machine. maxprocs is GOMAXPROCS of the server, or 0 if
// it is as here.
func ThisMachine(ctx context.Context, maxprocs int) Machine {
	m := Machine{
		CPU: "unknown CPU", CPUs: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOARCH,
		GOMAXPROCS: runtime.GOMAXPROCS(0), Server: maxprocs, Commit: Commit(ctx), Modules: modules(),
	}
	if m.Server == 0 {
		m.Server = m.GOMAXPROCS
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	return m
}

// Commit is the revision that was built: go build notes it, go run does not.
func Commit(ctx context.Context) string {
	revision, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+changes"
			}
		}
	}
	if revision != "" {
		return revision + dirty
	}
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+changes", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// modules are the versions of the modules that this program is built of.
func modules() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, m := range info.Deps {
		if m.Replace == nil && m.Version != "(devel)" {
			versions[m.Path] = m.Version
		}
	}
	return versions
}

// WriteMachine prints the lines that describe m.
func WriteMachine(w io.Writer, m *Machine) {
	for _, line := range m.Lines()[:2] { // the modules are in JSON and reports
		fmt.Fprintln(w, line)
	}
}
