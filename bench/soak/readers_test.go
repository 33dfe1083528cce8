//go:build linux

package soak

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/client"
)

// TestReader asserts that a reader finds each kind of loss, and that gaps excuse the messages that
// they name.
func TestReader(t *testing.T) {
	type step any
	at := func(numbers ...int64) (steps []step) {
		for _, n := range numbers {
			steps = append(steps, client.Notify{
				Position: client.Position{Epoch: "a", Offset: n}, Data: []byte(strconv.FormatInt(n, 10)),
			})
		}
		return steps
	}
	gap := func(reason string, after, next int64) step {
		return client.Gap{Epoch: "a", After: after, Next: next, Reason: reason}
	}
	other := client.Notify{Position: client.Position{Epoch: "a", Offset: 2}, Data: []byte("3")}
	for name, test := range map[string]struct {
		steps               []step
		epochs              uint64
		head                int64
		missing, disordered uint64
	}{
		"whole":                   {at(1, 2, 3), 0, 3, 0, 0},
		"a hole":                  {at(1, 3), 0, 3, 1, 0},
		"a duplicate":             {at(1, 1, 2), 0, 2, 0, 1},
		"overtaken":               {at(2, 1), 0, 2, 1, 1},
		"another message":         {append(at(1), other), 0, 1, 0, 1},
		"no end":                  {at(1, 2), 0, 5, 3, 0},
		"named":                   {append(append(at(1), gap("expired", 1, 4)), at(4)...), 0, 4, 0, 0},
		"a gap out of its place":  {append(at(1), gap("slow", 2, 4)), 0, 3, 0, 1},
		"found by the client":     {append(at(1), gap("unknown", 1, 4)), 0, 3, 2, 0},
		"a restart":               {append(append(at(1, 2), gap("epoch", 0, 1)), at(1)...), 1, 1, 0, 0},
		"a restart behind losses": {append(append(at(1), gap("epoch", 0, 1)), at(1)...), 1, 1, 1, 0},
		"no new epoch":            {at(1, 2), 1, 2, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(reader)
			for _, s := range test.steps {
				switch s := s.(type) {
				case client.Notify:
					r.message(s)
				case client.Gap:
					r.gap(s)
				}
			}
			r.check(test.epochs, test.head)
			if test.epochs > 0 {
				readers{r}.restarted(2)
			}
			sum := readers{r}.sum()
			assert.Equal(t, []uint64{test.missing, test.disordered}, []uint64{sum.missing, sum.disordered})
		})
	}
}
