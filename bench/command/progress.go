//go:build linux

package command

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows in one line the step that runs and the time that is left. A nil
// progress shows nothing. Not safe for concurrent use.
type progress struct {
	w        io.Writer
	terminal bool // the line replaces the one before
	now      func() time.Time

	began          time.Time     // when the first step did
	steps, started int           // expected, and begun
	each           time.Duration // estimate for a step, until the first has ended
}

// NewProgress returns one that writes to f if that is a terminal, or if it is
// wanted anyway.
func NewProgress(f *os.File, always bool) *progress {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil && !always {
		return nil
	}
	return &progress{w: f, terminal: err == nil, now: time.Now}
}

// Expect adds steps that will come, of about the duration each.
func (p *progress) Expect(steps int, each time.Duration) {
	if p != nil {
		p.steps, p.each = p.steps+steps, each
	}
}

// Step shows the step that begins now.
func (p *progress) Step(format string, args ...any) {
	if p == nil {
		return
	}
	now, each := p.now(), p.each
	if p.started == 0 {
		p.began = now
	} else {
		each = now.Sub(p.began) / time.Duration(p.started)
	}
	line := fmt.Sprintf(format, args...)
	if n := p.steps - p.started; n > 0 {
		line += fmt.Sprintf(", about %s left", max(each*time.Duration(n), time.Second).Round(time.Second))
	}
	p.started++
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K"+line)
		return
	}
	fmt.Fprintln(p.w, line)
}

// Done clears the line. The next step is the first of another command.
func (p *progress) Done() {
	if p == nil {
		return
	}
	if p.terminal && p.started > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.steps, p.started = 0, 0
}
