package engine

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strconv"
	"strings"
)

// A loop's goroutine has two labels for profiles: the number of the loop, and
// the address of its engine, because a process may have several. By them its
// stack is found in a goroutine profile. Such a profile stops the process only
// for moments and reads the stacks beside it; runtime.Stack stops the process
// until all stacks are printed.
const (
	loopLabel   = "ws_loop"
	engineLabel = "ws_engine"
)

// loopRoots are the functions that begin the stacks of loops.
var loopRoots = [...]string{"gnet/v2.(*eventloop).run+", "engine.(*simLoop).run+"}

// engineID returns the value of engineLabel.
func (s *Shard) engineID() string { return fmt.Sprintf("%p", s.eng) }

// labelInLoop sets the labels of the loop's goroutine.
func (s *Shard) labelInLoop() {
	labels := pprof.Labels(loopLabel, strconv.Itoa(s.index), engineLabel, s.engineID())
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), labels))
}

// goroutineProfile returns the stacks of all goroutines, with their labels.
func goroutineProfile() []byte {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a Buffer returns no error
	return b.Bytes()
}

// stackIn returns the stack of the loop's goroutine in a profile, or a note that
// it was not found. A handler may have replaced the labels of the goroutine
// (pprof.Do); then it is the only loop without labels.
func (s *Shard) stackIn(profile []byte) string {
	mine := fmt.Appendf(nil, "%q:%q, %q:%q", engineLabel, s.engineID(), loopLabel, strconv.Itoa(s.index))
	var unlabeled [][]byte
	for record := range bytes.SplitSeq(profile, []byte("\n\n")) {
		switch {
		case !isLoop(record):
		case bytes.Contains(record, mine):
			return formatStack(record)
		case !bytes.Contains(record, []byte(strconv.Quote(loopLabel)+":")):
			unlabeled = append(unlabeled, record)
		}
	}
	if len(unlabeled) == 1 {
		return formatStack(unlabeled[0])
	}
	return "not found: a handler has changed the labels of the goroutine"
}

func isLoop(record []byte) bool {
	for _, root := range loopRoots {
		if bytes.Contains(record, []byte(root)) {
			return true
		}
	}
	return false
}

// formatStack returns the functions and lines of a record, whose lines have a
// number sign, an address, a function with an offset, and a place.
func formatStack(record []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(record)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "#" || !strings.HasPrefix(fields[1], "0x") {
			continue
		}
		fmt.Fprintf(&b, "%s\n\t%s\n", fields[2], strings.Join(fields[3:], " "))
	}
	return b.String()
}
