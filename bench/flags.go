//go:build linux

package main

import (
	"flag"
	"runtime"
	"slices"
	"time"
)

// options is what the flags set; zero conns means the command's own default.
type options struct {
	conns, size, outstanding, rooms int
	staying, opening, joinRooms     int
	procs                           int
	part                            *part // which of procs this process is, or nil
	args                            []string
	authDelay                       time.Duration
	admit                           float64 // connections a second
	admitBurst                      int
	moving, reconnecting            float64 // percent a second
	inflights, modes                string
	steps, path                     string
	sweep, join, json, verbose      bool
	compress                        bool
	compare                         bool
	stalled, trickle                float64 // percent
	rates, sizes                    string
	duration, warmup, quiet         time.Duration
	rounds                          int
	loops, maxprocs, clientLoops    int
	queue, ring, batch, roomShards  int
	unsent                          int
	measure                         bool
	sweeping                        sweepOptions
	tuning                          tuneOptions
	burst                           burstOptions
	attack                          attackOptions
	cpuprofile, memprofile          string
	serve                           []string // the server's program and arguments; nil is this program
	peers, peersBinary, loads       string   // compare
	compareRounds                   int
	simRooms                        int
	html, commandLine               string
	markdown                        bool     // report
	files                           []string // report
	progress                        *progress
}

func defaultOptions() options {
	return options{
		size: 512, inflights: "1,16", modes: "raw", outstanding: 64, path: "", simRooms: 10,
		sizes:  "64,512,16384",
		moving: 1, reconnecting: 0.5, staying: 1000, opening: 1000, joinRooms: 2,
		rooms: 1, procs: 1, duration: 5 * time.Second, warmup: time.Second, quiet: time.Second, rounds: 1,
		clientLoops: runtime.NumCPU(), measure: true,
		sweeping: sweepOptions{load: "fanout", rounds: leastRounds}, tuning: tuneOptions{rooms: 1},
		burst: defaultBurst(), attack: defaultAttack(), loads: "all", peers: "all", compareRounds: 3,
	}
}

// register declares the flags of a command, or all of them if cmd is empty.
// What is already in o is the default, so flags may precede the command.
func (o *options) register(fs *flag.FlagSet, cmd string) {
	has := func(commands ...string) bool {
		return cmd == "" || cmd == "all" || slices.Contains(commands, cmd)
	}
	o.registerCommon(fs)
	rounds := o.registerServer(fs, cmd)
	o.registerLoad(fs, has, rounds)
	if has("idle", "compare") {
		fs.DurationVar(&o.quiet, "quiet", o.quiet, "idle: wait before memory is measured")
		fs.BoolVar(&o.join, "join", o.join, "idle: every connection joins one room")
	}
	if has("idle", "sim") {
		fs.StringVar(&o.steps, "steps", o.steps, "idle, sim: connection `counts` to measure at (default "+idleSteps+"; sim "+simSteps+")")
	}
	if cmd == "sim" { // elsewhere the rooms of the loads
		fs.IntVar(&o.simRooms, "rooms", o.simRooms, "sim: rooms that each connection joins: one of all, others of 1,000")
	}
	if has("idle") {
		o.registerIdle(fs)
	}
	if has("echo", "sweep") {
		fs.StringVar(&o.inflights, "inflight", o.inflights, "echo: messages in flight on each connection, `counts` for a row each")
	}
	if has("fanout", "sweep") {
		fs.IntVar(&o.outstanding, "outstanding", o.outstanding, "fanout: publishes that not all members have received")
	}
	if has("echo") {
		o.registerEcho(fs)
	}
	if has("fanout", "latency") {
		o.registerFanout(fs)
	}
	if has("idle", "fanout", "latency", "storm") {
		fs.IntVar(&o.procs, "procs", o.procs, "so many load generator and server `processes`, each with its share of the connections; all else holds for each of them")
	}
	if has("fanout", "latency", "mixed") {
		fs.IntVar(&o.rooms, "rooms", o.rooms, "rooms that the members are spread over; mixed: a tenth of the connections unless set")
	}
	if has("fanout", "latency", "slow") {
		fs.Float64Var(&o.stalled, "stalled", o.stalled, "so many `percent` of the members never read; slow: 5 unless this or -trickle is set")
		fs.Float64Var(&o.trickle, "trickle", o.trickle, "so many `percent` of the members read 64 bytes every 100 ms; slow: 5 alike")
	}
	if has("mixed") {
		fs.Float64Var(&o.moving, "moving", o.moving, "mixed: so many `percent` of the clients change rooms each second")
		fs.Float64Var(&o.reconnecting, "reconnecting", o.reconnecting, "mixed: so many `percent` of the clients reconnect each second")
	}
	o.registerRest(fs, cmd, has)
}

// registerRest declares the flags of commands that have them alone.
func (o *options) registerRest(fs *flag.FlagSet, cmd string, has func(...string) bool) {
	if has("tls") {
		fs.StringVar(&o.sizes, "sizes", o.sizes, "tls: payload `bytes` to echo, a row each")
	}
	if has("storm") {
		o.registerStorm(fs)
	}
	if has("burst") {
		o.burst.register(fs)
	}
	if has("attack") {
		o.attack.register(fs)
	}
	if has("compare", "burst") {
		o.registerPeers(fs)
	}
	if has("compare") {
		o.registerCompare(fs)
	}
	if has("doctor") {
		o.registerDoctor(fs, cmd)
	}
}

// registerCommon declares the flags that all commands know.
func (o *options) registerCommon(fs *flag.FlagSet) {
	fs.BoolVar(&o.json, "json", o.json, "print JSON")
	fs.StringVar(&o.html, "html", o.html, "write the report with its charts to `file`, too")
	fs.BoolVar(&o.verbose, "v", o.verbose, "print the server's process ID and what is going on to standard error")
	fs.StringVar(&o.path, "path", o.path, "`native` or http: who accepts and upgrades (idle: both unless set)")
	fs.IntVar(&o.maxprocs, "maxprocs", o.maxprocs, "GOMAXPROCS of the server; 0 leaves it alone")
	fs.IntVar(&o.clientLoops, "client-loops", o.clientLoops, "epoll loops of the load generator")
	fs.IntVar(&o.queue, "queue", o.queue, "WithMessageQueueSize; 0 is the library's default")
	fs.IntVar(&o.unsent, "unsent", o.unsent, "WithUnsentBytes; 0 is the library's default, -1 no bound")
}

// registerServer declares the flags of the server's settings, which are lists for
// sweep, and which tune finds itself. It returns where -rounds belongs.
func (o *options) registerServer(fs *flag.FlagSet, cmd string) (rounds *int) {
	rounds = &o.rounds
	switch cmd {
	case "sweep":
		o.sweeping.register(fs)
		return &o.sweeping.rounds
	case "tune":
		o.tuning.register(fs)
		return &o.sweeping.rounds
	case "compare":
		rounds = &o.compareRounds
		fallthrough
	default:
		fs.IntVar(&o.loops, "loops", o.loops, "event loops of the server; 0 is GOMAXPROCS, or 1 for fair")
		fs.IntVar(&o.ring, "ring", o.ring, "BroadcastConfig.QueueSize; 0 is the library's default")
		fs.IntVar(&o.batch, "batch", o.batch, "BroadcastConfig.BatchSize; 0 is the library's default")
		fs.IntVar(&o.roomShards, "room-shards", o.roomShards, "WithRoomShards, a power of two; 0 is the library's default")
	}
	return rounds
}

// registerLoad declares flags that several loads know.
func (o *options) registerLoad(fs *flag.FlagSet, has func(commands ...string) bool, rounds *int) {
	if has("echo", "fanout", "latency", "mixed", "slow", "fair", "tls", "storm", "drain", "sweep", "tune", "compare") {
		fs.IntVar(&o.conns, "conns", o.conns, "connections; 0 is 10,000 for fanout, latency and tune, 5,000 for storm, 2,000 for mixed, 1,000 for the others; compare: each load's own")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "burst", "fair", "tls", "storm", "drain", "sweep", "tune", "compare") {
		fs.IntVar(rounds, "rounds", *rounds, "repetitions, one row each, or in turns for sweep and tune")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "fair", "storm", "drain", "sweep", "tune", "compare", "sim") {
		fs.IntVar(&o.size, "size", o.size, "payload bytes, at least 16")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "fair", "tls", "sweep", "tune", "compare", "attack") {
		fs.DurationVar(&o.duration, "duration", o.duration, "time to measure for, or to attack; latency and fair take twice as long")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "fair", "tls", "sweep", "tune", "compare") {
		fs.DurationVar(&o.warmup, "warmup", o.warmup, "time to run before measuring")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "burst", "fair", "tls", "sweep", "tune", "compare", "sim") {
		fs.StringVar(&o.cpuprofile, "cpuprofile", o.cpuprofile, "write the server's CPU profile of the last row to `file`")
	}
	if has("echo", "fanout", "latency", "mixed", "slow", "storm", "sweep") {
		fs.StringVar(&o.rates, "rate", o.rates, "messages (echo) or publishes per second over all connections or rooms, `rates` such as 4,10,100 for a row each; latency: 4 unless set; slow and storm: 20; mixed: 500")
	}
}

// registerIdle declares the flags of idle.
func (o *options) registerIdle(fs *flag.FlagSet) {
	fs.BoolVar(&o.compress, "compress", o.compress, "idle: every connection negotiates permessage-deflate")
	fs.StringVar(&o.memprofile, "memprofile", o.memprofile, "idle: write the server's heap at the last count to `file`; inflates the other figures")
}

// registerEcho declares the flags of echo.
func (o *options) registerEcho(fs *flag.FlagSet) {
	fs.StringVar(&o.modes, "mode", o.modes, "echo: raw (HandleRaw inline), pooled (HandleRaw on workers), json (a typed handler on workers), json-inline; `modes` for a row each")
}

// registerFanout declares the flags of fanout and latency.
func (o *options) registerFanout(fs *flag.FlagSet) {
	fs.BoolVar(&o.sweep, "sweep", o.sweep, "fanout: 1, 4, 16 and 64 outstanding")
	fs.BoolVar(&o.compare, "compare", o.compare, "fanout, latency: every round without and with the slow members, and the ratios")
}

// registerStorm declares the flags of storm.
func (o *options) registerStorm(fs *flag.FlagSet) {
	fs.IntVar(&o.staying, "staying", o.staying, "storm: `members` that stay, and get what is published meanwhile")
	fs.IntVar(&o.opening, "opening", o.opening, "storm: handshakes under way at once; 0 is all")
	fs.IntVar(&o.joinRooms, "join-rooms", o.joinRooms, "storm: rooms that the server puts each client into")
	fs.Float64Var(&o.admit, "admit", o.admit, "storm: WithAdmission, connections a second that the server lets in; 0 is no limit")
	fs.IntVar(&o.admitBurst, "admit-burst", o.admitBurst, "storm: connections that it lets in at once; 0 is the library's default")
	fs.DurationVar(&o.authDelay, "auth-delay", o.authDelay, "storm: time that authentication waits, as for a database")
}

// registerCompare declares the flags of compare.
func (o *options) registerCompare(fs *flag.FlagSet) {
	fs.StringVar(&o.loads, "load", o.loads, "compare: `loads` such as echo16,fanout-8, or all")
}

// registerPeers declares the flags of the other libraries.
func (o *options) registerPeers(fs *flag.FlagSet) {
	fs.StringVar(&o.peers, "peers", o.peers, "compare: `libraries` such as gorilla,gws, or all; burst: none, or all that have its handler")
	fs.StringVar(&o.peersBinary, "peers-binary", o.peersBinary, "compare, burst: the program built from bench/peers; else it is built")
}

// registerDoctor declares the flags of doctor.
func (o *options) registerDoctor(fs *flag.FlagSet, cmd string) {
	if cmd == "doctor" { // elsewhere the connections of the loads
		fs.IntVar(&o.conns, "conns", o.conns, "doctor: connections to hold; 0 is what the limits allow")
	}
	fs.BoolVar(&o.measure, "measure", o.measure, "doctor: measure the kernel's memory for a socket with 2,000 connections")
}
