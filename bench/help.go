//go:build linux

package main

// helpText is what -h says of a command.
type helpText struct{ about, example string }

// help explains the commands, by their names.
var help = map[string]helpText{
	"idle": {
		`Opens connections that say nothing, on a fresh server for each path, and asks the
server for its heap and RSS after garbage collection at each of some counts. The
slope over the counts is what one more connection costs; what the process takes
anyway is not in it. It also says what CPU time accepting a connection took.`,
		"bench idle -path native -steps 2000,5000,10000,15000 -join -html idle.html",
	},
	"echo": {
		`Every connection keeps some messages in flight, which the server sends back as they
are. It counts messages a second, the server's CPU time and writes for each, and
the round trip, which includes the queueing that many in flight cause.`,
		"bench echo -conns 1000 -inflight 16 -rounds 5",
	},
	"fanout": {
		`A publisher in the server sends to rooms of many members at full speed: it keeps
some publishes outstanding that not all members have received. It counts
deliveries a second, the server's CPU time and writes for each, and the time to
the last member; nothing may be missing, disordered or dropped.`,
		"bench fanout -conns 10000 -sweep -html fanout.html",
	},
	"latency": {
		`Publishes at a fixed rate and measures the time until each member has the message,
from when it was due: a publisher that is late does not make the figures better.`,
		"bench latency -conns 10000 -rate 4,10,50",
	},
	"slow": {
		`Clients join a room and never read. When each has something queued, 100 more
messages are published, and the heap that these take is measured: the frames are
shared by all queues, so it is far less than a copy for each client.`,
		"bench slow -conns 1000",
	},
	"mixed": {
		`Chat: clients in rooms of skewed sizes say something at random times, and the
server sends it to the speaker's room; some change rooms or reconnect meanwhile.
Each must get all that is said in its room while it is there, and that is counted.`,
		"bench mixed -conns 10000 -rate 200",
	},
	"tls": {
		`Puts plain connections, TLS on the native path and TLS behind net/http next to each
other: CPU time and rate of accepting with a full handshake, memory of a connection
that has echoed 16 KiB, and the CPU time of an echo. Only the server's part counts:
the clients have a goroutine each.`,
		"bench tls -conns 1000 -sizes 64,16384",
	},
	"storm": {
		`All clients connect at once, with authentication and room joins, are cut off at
once, and come back, while other members of a room receive a steady stream. It says
how fast they are in, what that costs, and what the others notice of it.`,
		"bench storm -conns 10000",
	},
	"drain": {
		`Shuts a server down while clients are connected and messages are queued for them,
and looks at it from the clients' side: who got everything that was published
before, who was told 1001, how long it took, and what the process has left.`,
		"bench drain -conns 5000",
	},
	"compare": {
		`Gives the same loads to this library and to its peers in one session, in turns, each
on a fresh server process: gorilla, gws, nbio, greatws, gobwas, coder, melody and
centrifuge, written as their documentation says. Medians over the rounds with their
spread, and who is best at what.`,
		"bench compare -load echo16,fanout-64 -peers gws,gobwas -rounds 5 -html compare.html",
	},
	"sim": {
		`Holds up to a million connections without sockets: the library itself, with its
shards, rooms, queues and timers, over a network in memory. Memory of a connection,
CPU time of joins, deliveries, pings and the shutdown, at each of some counts, and
how far they grow with the count.`,
		"bench sim -steps 10000,100000,1000000",
	},
	"doctor": {
		`Reads the limits of this machine, says how many connections each allows and which
of them binds, and prints the commands that raise those that are too low.`,
		"bench doctor -conns 1000000",
	},
	"sweep": {
		`Runs one load with every combination of the settings that are given, in turns and
each on a fresh server, and sorts them by what a message costs the server.`,
		"bench sweep -load fanout -loops 1,2 -batch 16,64,256 -rounds 5",
	},
	"tune": {
		`Runs the sweep that fits the load that you describe, scaled down to what this
machine can hold, and prints the options to use, with the reason and the measured
gain of each. A gain within the noise is none.`,
		"bench tune -conns 50000 -rooms 5000 -rate 2000 -size 300",
	},
	"burst": {
		`One client sends requests or an upload without waiting for answers, faster than the
pooled handlers work: the server pauses its connection, and the client waits. It
says when all was answered, in order, what that took of the server's CPU time and
memory, and how often it paused. Requests to a handler that does nothing are also
sent to gws, in turns, whose read loop handles them one by one.`,
		"bench burst -rounds 5 -path http",
	},
	"fair": {
		`One connection sends a message, waits for its echo, and sends the next, while a
goroutine of the server publishes to the members of a room on the same event loop
without a pause. The round trip says how long a loop's fan-out holds up its reads.`,
		"bench fair -conns 1000 -loops 1",
	},
	"attack": {
		`Runs one kind of abuse after the other, each against a fresh server with the
library's defaults: attackers in a process of their own, beside 20 healthy clients
whose requests are due at fixed times, and newcomers that connect. It says what the
healthy clients notice of it, what the server takes of processor, memory and
descriptors, during the attack and after it, and what the attackers got.`,
		"bench attack -only hangup,rooms -duration 5s -path http",
	},
	"all": {
		`Runs all commands that measure, one after the other, with their defaults where a
flag does not say otherwise.`,
		"bench all -html report.html -json",
	},
	"report": {
		`Reads what -json has printed, of one run or several, and makes one report of it:
text, unless -html or -markdown is given.`,
		"bench report idle.json fanout.json -html report.html",
	},
}
