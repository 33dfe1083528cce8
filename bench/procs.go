//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/result"
)

// With -procs N the command runs N times at once, each in a load generator
// process with a server process of its own and its share of the connections.
// They wait for each other before each load; their rows become one.

// runPart is the hidden command: one of several processes. arg is its number and
// how many there are, such as 0/2; args is the command line of all.
func runPart(ctx context.Context, arg string, args []string, in io.Reader, out io.Writer) error {
	p := &command.Part{In: bufio.NewReader(in), Out: out}
	if _, err := fmt.Sscanf(arg, "%d/%d", &p.Index, &p.Of); err != nil {
		return fmt.Errorf("bench: part %q: %w", arg, err)
	}
	inv, err := parse(args, io.Discard)
	if err != nil {
		return err
	}
	inv.session.Part = p
	tables, err := inv.runs[0].Run(ctx, &inv.session)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result.PartsOf(tables))
}

// runParts runs a command in several processes, and merges their tables.
func runParts(ctx context.Context, args []string, procs int) ([]*result.Table, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that wait for one that failed
	children := make([]*child, procs)
	for i := range children {
		c, err := startChild(ctx, args, i, procs)
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.wait() }() // the error of its output has the reason
		children[i] = c
	}
	for {
		var ended int
		for _, c := range children {
			line, err := c.out.ReadBytes('\n')
			if err != nil {
				cancel()
				return nil, fmt.Errorf("process %d of %d: %w", c.index+1, len(children), errors.Join(err, c.wait()))
			}
			if string(line) == command.ReadyLine {
				continue
			}
			if err := json.Unmarshal(line, &c.tables); err != nil {
				return nil, err
			}
			ended++
		}
		if ended > 0 { // all of them have the same loads
			break
		}
		for _, c := range children {
			if _, err := io.WriteString(c.in, "\n"); err != nil {
				return nil, err
			}
		}
	}
	parts := make([][]result.PartTable, len(children))
	for i, c := range children {
		parts[i] = c.tables
	}
	return result.MergeTables(parts)
}

// child is one of the processes of -procs.
type child struct {
	index  int
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	tables []result.PartTable
}

func startChild(ctx context.Context, args []string, index, procs int) (*child, error) {
	args = append([]string{"part", strconv.Itoa(index) + "/" + strconv.Itoa(procs)}, args...)
	c := &child{index: index, cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) wait() error {
	_ = c.in.Close()
	return c.cmd.Wait()
}

func procsFlag(fs *flag.FlagSet, procs *int) {
	fs.IntVar(procs, "procs", *procs,
		"load generator and server `processes`, each with its share of the connections; all else holds for each of them")
}

// validProcs returns an error if the command cannot run in several processes.
func validProcs(procs int, name string) error {
	var able []string
	for _, c := range commands {
		if c.Procs {
			able = append(able, c.Name)
		}
	}
	if procs > 1 && !slices.Contains(able, name) {
		return fmt.Errorf("bench: -procs works with %s, without -compare", strings.Join(able, ", "))
	}
	return command.AtLeast("-procs", procs, 1)
}
