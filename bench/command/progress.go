//go:build linux

package command

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress says in one line what runs now and how long it will take. A nil
// progress says nothing. Not safe for concurrent use.
type progress struct {
	w        io.Writer
	terminal bool // the line replaces the one before
	now      func() time.Time

	began          time.Time     // when the first step did
	steps, started int           // expected, and begun
	each           time.Duration // what a step takes, as long as none has ended
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

// Expect says that so many more steps will come, and about how long each takes.
func (p *progress) Expect(steps int, each time.Duration) {
	if p != nil {
		p.steps, p.each = p.steps+steps, each
	}
}

// Step says what begins now.
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
