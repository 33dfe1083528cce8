//go:build linux

package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The flags that several commands have. Each function declares one of them; the
// variable's value is its default.

func connsFlag(fs *flag.FlagSet, conns *int) {
	fs.IntVar(conns, "conns", *conns, "connections; 0 is 10,000 for fanout, latency and tune, 5,000 for storm, 2,000 for mixed, 1,000 for the others; compare: each load's own")
}

func roundsFlag(fs *flag.FlagSet, rounds *int) {
	fs.IntVar(rounds, "rounds", *rounds, "repetitions, one row each, or in turns for sweep and tune")
}

func sizeFlag(fs *flag.FlagSet, size *int) {
	fs.IntVar(size, "size", *size, "payload bytes, at least 16")
}

func ratesFlag(fs *flag.FlagSet, rates *string) {
	fs.StringVar(rates, "rate", *rates, "messages (echo) or publishes per second over all connections or rooms, `rates` such as 4,10,100 for a row each; latency: 4 unless set; slow and storm: 20; mixed: 500")
}

func roomsFlag(fs *flag.FlagSet, rooms *int) {
	fs.IntVar(rooms, "rooms", *rooms, "rooms that the members are spread over; mixed: a tenth of the connections unless set")
}

func slowFlags(fs *flag.FlagSet, stalled, trickle *float64) {
	fs.Float64Var(stalled, "stalled", *stalled, "so many `percent` of the members never read; slow: 5 unless this or -trickle is set")
	fs.Float64Var(trickle, "trickle", *trickle, "so many `percent` of the members read 64 bytes every 100 ms; slow: 5 alike")
}

func inflightFlag(fs *flag.FlagSet, inflights *string) {
	fs.StringVar(inflights, "inflight", *inflights, "echo: messages in flight on each connection, `counts` for a row each")
}

func outstandingFlag(fs *flag.FlagSet, outstanding *int) {
	fs.IntVar(outstanding, "outstanding", *outstanding, "fanout: publishes that not all members have received")
}

func stepsFlag(fs *flag.FlagSet, steps *string) {
	fs.StringVar(steps, "steps", *steps, "idle, sim: connection `counts` to measure at (default "+idleSteps+"; sim "+simSteps+")")
}

func idleFlags(fs *flag.FlagSet, quiet *time.Duration, join *bool) {
	fs.DurationVar(quiet, "quiet", *quiet, "idle: wait before memory is measured")
	fs.BoolVar(join, "join", *join, "idle: every connection joins one room")
}

func durationFlag(fs *flag.FlagSet, duration *time.Duration) {
	fs.DurationVar(duration, "duration", *duration, "time to measure for, or to attack; latency and fair take twice as long")
}

func cpuprofileFlag(fs *flag.FlagSet, file *string) {
	fs.StringVar(file, "cpuprofile", *file, "write the server's CPU profile of the last row to `file`")
}

// timing says when a load is measured.
type timing struct {
	warmup, duration time.Duration
	cpuprofile       string // file
}

// defaultInflights is the default of -inflight.
const defaultInflights = "1,16"

// defaultDuration is the default of -duration.
const defaultDuration = 5 * time.Second

func defaultTiming() timing { return timing{warmup: time.Second, duration: defaultDuration} }

func (t *timing) flags(fs *flag.FlagSet) {
	durationFlag(fs, &t.duration)
	fs.DurationVar(&t.warmup, "warmup", t.warmup, "time to run before measuring")
	cpuprofileFlag(fs, &t.cpuprofile)
}

// rateList reads the value of -rate; there is none if it is not set.
func rateList(value string) ([]float64, error) {
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

// validRates checks -rate.
func validRates(value string) error {
	_, err := rateList(value)
	return err
}

// inflightCounts reads the value of -inflight.
func inflightCounts(value string) ([]int, error) {
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

// stepCounts reads the value of -steps.
func stepCounts(value string) ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || (len(counts) > 0 && n <= counts[len(counts)-1]) {
			return nil, fmt.Errorf("bench: -steps is %q, must be rising counts such as 2000,15000", value)
		}
		counts = append(counts, n)
	}
	return counts, nil
}
