//go:build linux

package command

import (
	"bufio"
	"io"
)

// Part is the place of this process among those of -procs.
type Part struct {
	Index, Of int
	In        *bufio.Reader
	Out       io.Writer
}

// ReadyLine is the line that a part writes when it waits for the others.
const ReadyLine = "ready\n"

// Share is the part's share of n.
func (p *Part) Share(n int) int {
	if p == nil {
		return n
	}
	return (n + p.Of - 1 - p.Index) / p.Of
}

// Together waits until all parts have come so far.
func (p *Part) Together() error {
	if p == nil {
		return nil
	}
	if _, err := io.WriteString(p.Out, ReadyLine); err != nil {
		return err
	}
	_, err := p.In.ReadString('\n')
	return err
}
