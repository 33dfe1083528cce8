//go:build linux

package soak

import (
	"fmt"
	"strings"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

// resource is one that must not grow. Immutable.
type resource struct {
	name  string
	of    func(r *control.Report) float64
	least float64 // growth that is allowed ...
	share float64 // ... or this share of the beginning, whichever is larger
}

// resources are compared at the end of each cycle, after garbage collection.
var resources = []resource{
	{"clients", func(r *control.Report) float64 { return float64(r.Clients) }, 0, 0},
	{"goroutines", func(r *control.Report) float64 { return float64(goroutines(r)) }, 4, 0.05},
	{"descriptors", func(r *control.Report) float64 { return float64(r.Descriptors) }, 4, 0.02},
	{"heap MiB", func(r *control.Report) float64 { return mebibytes(r.HeapAlloc) }, 0.5, 0.1},
	{"RSS MiB", func(r *control.Report) float64 { return mebibytes(r.RSS) }, 12, 0.1},
}

// goroutines are those of a server without idle workers of gnet's pool, which last for a
// while and are as many as upgrades of the path http were under way at once.
func goroutines(r *control.Report) int { return r.Goroutines - r.IdleWorkers }

func mebibytes(n uint64) float64 { return float64(n) / (1 << 20) }

// trend is the development of a resource over one half of a run.
type trend struct {
	first, last   float64 // medians of the first and of the last third
	allowed, each float64 // growth: the most, and for each cycle
}

func (t *trend) flat() bool { return t.last-t.first <= t.allowed }

// warmCycles is the number of cycles after which queues, tables and pools have the sizes that
// the loads need.
const warmCycles = 4

// judge compares the last third of values with the first, behind a quarter or warmCycles to
// warm up, as far as there are enough. Medians are not moved by a few cycles whose attack
// leaves more behind for a while.
func (r *resource) judge(values []float64) trend {
	values = values[min(max(warmCycles, len(values)/4), len(values)-3):]
	third := max(1, len(values)/3)
	t := trend{first: result.Median(values[:third]), last: result.Median(values[len(values)-third:])}
	t.allowed = max(r.least, r.share*t.first)
	t.each = (t.last - t.first) / float64(max(1, len(values)-third))
	return t
}

// verdict adds the trends of all resources to a table, and returns the faults.
func (r *run) verdict(t *result.Table) (faults []string) {
	for _, part := range []string{oneManager, manyManagers} {
		for i := range resources {
			var values []float64
			for _, c := range r.cycles {
				if c.part == part {
					values = append(values, resources[i].of(c.rest))
				}
			}
			trend, answer := resources[i].judge(values), "yes"
			if !trend.flat() {
				answer = "NO"
				faults = append(faults, fmt.Sprintf("%s grew from %.1f to %.1f with %s",
					resources[i].name, trend.first, trend.last, part))
			}
			t.Add(part, resources[i].name, len(values), trend.first, trend.last, trend.last-trend.first,
				trend.each, trend.allowed, answer)
		}
	}
	return faults
}

// losses returns the faults of the healthy clients and of the readers.
func (r *run) losses(missing, disordered uint64, read *readCounts) (faults []string) {
	for _, loss := range []struct {
		n    uint64
		name string
	}{
		{missing, "messages are missing"},
		{disordered, "messages are duplicates, or overtook others"},
		{r.counts.lost, "requests have no answer"},
		{r.counts.stuck + uint64(r.counts.closed), "healthy clients were closed"},
		{read.missing, "messages of a room with a history are missing"},
		{read.disordered, "messages of a room with a history are duplicates, or overtook others"},
		{read.closed, "clients of package client were closed, or refused"},
	} {
		if loss.n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", loss.n, loss.name))
		}
	}
	return faults
}

// report makes the tables. The error has the faults.
func (r *run) report() ([]*result.Table, error) {
	healthy, cycles, verdict := newHealthyTable(), newCyclesTable(), newVerdictTable()
	missing, disordered, messages := r.counts.missing, r.counts.disordered, uint64(0)
	for _, group := range r.chats {
		sum := group.Sum()
		missing, disordered, messages = missing+sum.Lost, disordered+sum.Disordered, messages+sum.Messages
	}
	read := r.read.sum()
	faults := append(r.losses(missing, disordered, &read), r.verdict(verdict)...)
	r.addHealthy(healthy, missing, disordered, messages)
	r.addCycles(cycles)
	verdict.Notes = []string{"verdict: flat, and nothing lost"}
	tables := []*result.Table{healthy, r.readersTable(&read), cycles, verdict, r.series()}
	if len(faults) == 0 {
		return tables, nil
	}
	verdict.Notes[0] = "verdict: " + strings.Join(append(faults, r.counts.reasons...), "; ")
	return tables, &command.VerdictError{Fault: strings.Join(faults, "; ")}
}
