//go:build linux

package command

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/control"
)

// The flags that several commands have. Each function declares one of them; the
// variable's value is its default.

// ConnsFlag declares -conns.
func ConnsFlag(fs *flag.FlagSet, conns *int) {
	fs.IntVar(conns, "conns", *conns,
		"connections; 0 is 10,000 for fanout, latency, resume and tune, 9,000 for cluster, 5,000 for storm, "+
			"4,000 for soak, 2,000 for mixed, 1,000 for the others; compare: each load's own")
}

// RoundsFlag declares -rounds.
func RoundsFlag(fs *flag.FlagSet, rounds *int) {
	fs.IntVar(rounds, "rounds", *rounds, "repetitions, one row each, or in turns for sweep and tune")
}

// SizeFlag declares -size.
func SizeFlag(fs *flag.FlagSet, size *int) {
	fs.IntVar(size, "size", *size, "payload bytes, at least 16")
}

// RatesFlag declares -rate.
func RatesFlag(fs *flag.FlagSet, rates *string) {
	fs.StringVar(rates, "rate", *rates,
		"messages (echo) or publishes per second over all connections or rooms, `rates` such as 4,10,100 for a row "+
			"each; latency: 4 unless set; slow and storm: 20; mixed: 500")
}

// RoomsFlag declares -rooms.
func RoomsFlag(fs *flag.FlagSet, rooms *int) {
	fs.IntVar(rooms, "rooms", *rooms,
		"rooms that the members are spread over; cluster: 1,000 unless set; mixed: a tenth of the connections unless set")
}

// SlowFlags declares -stalled and -trickle, in percent of the members.
func SlowFlags(fs *flag.FlagSet, stalled, trickle *float64) {
	fs.Float64Var(stalled, "stalled", *stalled,
		"`percent` of the members that never read; slow: 5 unless this or -trickle is set")
	fs.Float64Var(trickle, "trickle", *trickle,
		"`percent` of the members that read 64 bytes every 100 ms; slow: 5 unless this or -stalled is set")
}

// InflightFlag declares -inflight.
func InflightFlag(fs *flag.FlagSet, inflights *string) {
	fs.StringVar(inflights, "inflight", *inflights, "echo: messages in flight on each connection, `counts` for a row each")
}

// OutstandingFlag declares -outstanding.
func OutstandingFlag(fs *flag.FlagSet, outstanding *int) {
	fs.IntVar(outstanding, "outstanding", *outstanding, "fanout, cluster: publishes that not all members have received")
}

// ByClientFlag declares -by-client.
func ByClientFlag(fs *flag.FlagSet, byClient *bool) {
	fs.BoolVar(byClient, "by-client", *byClient,
		"fanout, latency, compare: a client publishes through an inline handler, not the server itself")
}

// StepsFlag declares -steps.
func StepsFlag(fs *flag.FlagSet, steps *string) {
	fs.StringVar(steps, "steps", *steps,
		"idle, sim: connection `counts` to measure at (default "+IdleSteps+"; sim "+SimSteps+")")
}

// IdleFlags declares -quiet and -join.
func IdleFlags(fs *flag.FlagSet, quiet *time.Duration, join *bool) {
	fs.DurationVar(quiet, "quiet", *quiet, "idle: wait before memory is measured")
	fs.BoolVar(join, "join", *join, "idle: every connection joins one room")
}

// DefaultInflights is the default of -inflight.
const DefaultInflights = "1,16"

// RateList reads the value of -rate; there is none if it is not set.
func RateList(value string) ([]float64, error) {
	if value == "" {
		return nil, nil
	}
	var rates []float64
	for field := range strings.SplitSeq(value, ",") {
		rate, err := strconv.ParseFloat(field, 64)
		if err != nil || !(rate > 0 && rate <= 1e6) {
			return nil, fmt.Errorf("bench: -rate is %q, must be numbers per second such as 4,10,100", value)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// ValidRates checks -rate.
func ValidRates(value string) error {
	_, err := RateList(value)
	return err
}

// InflightCounts reads the value of -inflight.
func InflightCounts(value string) ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("bench: -inflight is %q, must be counts such as 1,16", value)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// StepCounts reads the value of -steps.
func StepCounts(value string) ([]int, error) { return RisingCounts("-steps", value) }

// RisingCounts reads the value of a flag.
func RisingCounts(name, value string) ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || (len(counts) > 0 && n <= counts[len(counts)-1]) {
			return nil, fmt.Errorf("bench: %s is %q, must be rising counts such as 4,16", name, value)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// The counts that -steps sets unless it is given.
const (
	IdleSteps = "2000,5000,10000,15000"
	SimSteps  = "10000,100000,1000000"
)

// AtLeast returns an error if a flag's value is lower than the least.
func AtLeast[T cmp.Ordered](name string, value, least T) error {
	if value < least {
		return fmt.Errorf("bench: %s is %v, must be at least %v", name, value, least)
	}
	return nil
}

// ValidSize checks -size.
func ValidSize(size int) error {
	if size < control.StampBytes || size > 1<<20 {
		return fmt.Errorf("bench: -size is %d, must be between %d and 1048576", size, control.StampBytes)
	}
	return nil
}

// ValidSlow checks -stalled and -trickle.
func ValidSlow(stalled, trickle float64, compare bool) error {
	if stalled < 0 || trickle < 0 || stalled+trickle >= 100 || (compare && stalled+trickle == 0) {
		return errors.New("bench: -stalled and -trickle must be at least 0 and below 100 together, and above 0 with -compare")
	}
	return nil
}
