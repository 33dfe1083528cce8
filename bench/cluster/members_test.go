//go:build linux

package cluster

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/workload"
)

// The texts that a member reads in TestBroken.
const (
	joined  = `{"type":"response","code":200,"data":{"offset":6}}`
	seventh = `{"type":"notify","event":"n","offset":7,"data":{}}`
	ninth   = `{"type":"notify","event":"n","offset":9,"prev":7,"data":{}}`
	plain   = `{"type":"notify","event":"n","data":{}}`
	lost    = `{"type":"notify","event":"ws.gap","data":{"epoch":"e","after":6,"next":8,"reason":"slow"}}`
	others  = `{"type":"notify","event":"ws.gap","data":{"epoch":"","after":0,"next":0,"reason":"broker"}}`
)

// TestBroken asserts that the first message that does not follow the one before is shown.
func TestBroken(t *testing.T) {
	for _, test := range []struct {
		name       string
		texts      []string
		disordered uint64
		broken     string
	}{
		{"in order", []string{seventh, ninth}, 0, ""},
		{"behind a gap", []string{lost, ninth}, 0, ""},
		{"behind a gap of plain messages", []string{seventh, others, ninth}, 0, ""},
		{"missing", []string{ninth}, 0, "a message does not follow offset 6: " + ninth},
		{"twice", []string{seventh, seventh, plain}, 2, "a message does not follow offset 7: " + seventh},
		{"plain", []string{plain, seventh, ninth}, 1, "a message does not follow offset 6: " + plain},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMembers(workload.NewCompletions(1, 1, false))
			m.Add(0)
			l, c := &load.Loop{Whole: true}, new(load.Conn)
			for _, text := range append([]string{joined}, test.texts...) {
				m.Frame(l, c, &load.Frame{Op: load.OpText, Size: len(text), Head: []byte(text)}, 0)
			}
			assert.Equal(t, test.broken, m.broken)
			assert.Equal(t, test.disordered, l.Disordered.Load())
		})
	}
}
