//go:build linux

package tune

import (
	"fmt"

	"github.com/qi-realtime/ws"
)

// advice is the result of tune.
type advice struct {
	asked, measured description
	base, setting   setting
	chosen          []finding
	confirmed       *finding // nil if nothing was chosen
	reached         float64  // of the rate, with the default
}

// lines are the options as Go code, with the reasons.
func (a *advice) lines(rounds int) (lines []string) {
	if a.asked != a.measured {
		lines = append(lines, fmt.Sprintf("Asked for %s.", a.asked),
			fmt.Sprintf("Scaled down to the connections that this machine allows (see bench doctor -conns %d): the gains "+
				"are from the smaller load.", a.asked.conns))
	}
	if a.reached < 0.95 {
		lines = append(lines,
			fmt.Sprintf("The defaults reached %.0f %% of the rate: server and load generator together are too much for "+
				"this machine.", a.reached*100))
	}
	if rounds < leastRounds {
		lines = append(lines, fmt.Sprintf("Fewer than %d rounds cannot separate a gain from noise: nothing is recommended.",
			leastRounds))
	}
	options := a.options()
	switch {
	case a.confirmed == nil:
		lines = append(lines, "No option gained more than the noise: keep the defaults.")
	case !a.confirmed.good():
		lines = append(lines,
			fmt.Sprintf("The options that gained at first gained nothing when they were measured again (CPU: %s): keep "+
				"the defaults.",
				a.confirmed.cpuGain))
	default:
		lines = append(lines,
			fmt.Sprintf("CPU time of the server for a delivery with all of these, measured again: %s.", a.confirmed.cpuGain))
	}
	if a.confirmed != nil && a.confirmed.good() && a.setting.spare > 0 {
		lines = append(lines, fmt.Sprintf("Run with GOMAXPROCS %d higher: another idle processor spares Go's scheduler work.",
			a.setting.spare))
	}
	if len(options) == 0 {
		return append(lines, "", "m, err := ws.NewManager()")
	}
	lines = append(lines, "", "m, err := ws.NewManager(")
	return append(append(lines, options...), ")")
}

// options are the arguments of NewManager.
func (a *advice) options() (lines []string) {
	if a.asked.conns > ws.DefaultConfig().MaxConnections {
		lines = append(lines, fmt.Sprintf("\tws.WithMaxConnections(%d), // needed: the default is %d",
			a.asked.conns+a.asked.conns/20, ws.DefaultConfig().MaxConnections))
	}
	if a.confirmed == nil || !a.confirmed.good() {
		return lines
	}
	for _, f := range a.chosen {
		s := f.variation.setting
		if f.option == "gomaxprocs" {
			continue // no option
		}
		code := map[string]string{
			"loops":       fmt.Sprintf("ws.WithLoops(%d)", s.loops),
			"room-shards": fmt.Sprintf("ws.WithRoomShards(%d)", s.shards),
			"batch":       fmt.Sprintf("func(c *ws.Config) { c.Broadcast.BatchSize = %d }", s.batch),
			"ring":        fmt.Sprintf("func(c *ws.Config) { c.Broadcast.QueueSize = %d }", s.ring),
		}[f.option]
		lines = append(lines, fmt.Sprintf("\t%s, // %s; alone %s", code, f.reason, f.cpuGain))
		if queue := s.queue(); f.option == "batch" && queue > ws.DefaultConfig().MessageQueueSize {
			lines = append(lines, fmt.Sprintf("\tws.WithMessageQueueSize(%d), // without which the batch would be cut", queue))
		}
	}
	return lines
}
