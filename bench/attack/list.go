//go:build linux

package attack

import (
	"time"

	"github.com/qi-realtime/ws/bench/control"
)

// attack is one kind of abuse.
type attack struct {
	name, about string
	clients     int            // that attack
	fixed       bool           // -share does not make them fewer: the attack would be none
	server      control.Config // beside the defaults
	stream      float64        // publishes a second to a room of the healthy clients
	streamBytes int            // of each
	tls         bool           // the server speaks TLS
	stalls      bool           // the attackers' kernels hold little for them
	prepare     func(s *strike) any
	client      func(s *strike, i int) // one attacking client, until the strike is over
}

// attacks are all of them.
var attacks = []attack{
	{
		name: "hangup", about: "800 connects/s, 60 requests to a handler of 1 ms each, then a reset",
		clients: 1600, prepare: prepareHangup, client: hangup,
	},
	{
		name: "authstuck", about: "600 clients whose Authenticate ignores its context and never returns",
		clients: 600, fixed: true, client: authStuck,
		server: control.Config{Authenticate: true, HandshakeTimeout: 2 * time.Second},
	},
	{
		name: "inflate-empty", about: "compressed messages of 500 KiB in empty blocks, 1.7 MB/s",
		clients: 1, server: control.Config{Compress: true}, prepare: prepareEmptyBlocks, client: inflateEmpty,
	},
	{
		name: "inflate-blocks", about: "compressed messages of 500 KB in blocks that are costly to decode, 40/s",
		clients: 4, server: control.Config{Compress: true}, prepare: prepareCostlyBlocks, client: inflateBlocks,
	},
	{
		name: "inflate-ratio", about: "compressed messages of 600 B that inflate to 500 KiB, 310/s",
		clients: 10, server: control.Config{Compress: true}, prepare: prepareRatio, client: inflateRatio,
	},
	{
		name: "roomnames", about: "2 clients join and leave rooms with names of 500 KB, 250/s",
		clients: 2, fixed: true, prepare: prepareRoomNames, client: roomNames,
	},
	{
		name: "rooms", about: "8 clients join and leave new rooms at full speed",
		clients: 8, fixed: true, client: newRooms,
	},
	{
		name: "manyrooms", about: "2 clients join new rooms at full speed and leave none",
		clients: 2, fixed: true, client: manyRooms,
	},
	{
		name: "tlstrickle", about: "300 TLS handshakes that go on by a byte each 0.7 s",
		clients: 300, fixed: true, tls: true, prepare: prepareHello, client: tlsTrickle,
	},
	{
		name: "requestid", about: "100 clients send request IDs of 250 KB that grow when escaped, and do not read",
		clients: 100, fixed: true, stalls: true, prepare: prepareRequestID, client: requestIDs,
	},
	{
		name: "unfinished", about: "2,000 messages of 500 KB lack their end, which comes at a byte a second",
		clients: 2000, client: unfinished,
	},
	{
		name: "notreading", about: "300 clients subscribe to a stream, send pongs and read nothing",
		clients: 300, stalls: true, stream: 100, streamBytes: 4096, client: notReading,
	},
	{
		name: "violator", about: "4 clients break the protocol and go on sending at full speed",
		clients: 4, fixed: true, client: violate,
	},
	{
		name: "logflood", about: "4 clients provoke errors and panics of handlers at full speed",
		clients: 4, fixed: true, client: logFlood,
	},
	{
		name: "json-keys", about: "2 clients send JSON keys of 500 KB of escapes, 16/s",
		clients: 2, fixed: true, prepare: prepareKeys, client: jsonKeys,
	},
	{
		name: "json-slices", about: "1 client sends [{},{},...] of 500 KB to a handler that takes a slice of structs, 3/s",
		clients: 1, prepare: prepareSlices, client: jsonSlices,
	},
	{
		name: "json-nesting", about: "2 clients send 500 KB of [ without end, 20/s",
		clients: 2, fixed: true, prepare: prepareNesting, client: jsonNesting,
	},
	{
		name: "flood", about: "25 clients send to an inline handler at full speed, beside a fan-out",
		clients: 25, fixed: true, stream: 200, streamBytes: 512, client: flood,
	},
	{
		name: "ratelimit", about: "20 clients send 500 times more than the rate limit lets through",
		clients: 20, server: control.Config{MessagesPerSecond: 100}, client: aboveRate,
	},
	{
		name: "slowhead", about: "1,000 upgrade requests lack their end, which comes at a byte a second",
		clients: 1000, client: slowHead,
	},
	{
		name: "connectflood", about: "9,000 connections that send nothing",
		clients: 9000, server: control.Config{MaxConnections: 10_000}, client: connectFlood,
	},
	{
		name: "resets", about: "2,000 connects/s, half of them with a request, reset at once",
		clients: 16, client: resets,
	},
	{
		name: "pings", about: "10 clients send pings at full speed",
		clients: 10, fixed: true, client: pings,
	},
	{
		name: "fragments", about: "4 clients send messages of empty fragments without end",
		clients: 4, fixed: true, client: fragments,
	},
	{
		name: "garbage", about: "500 connects/s send random bytes, broken frames or frames without a mask",
		clients: 16, client: garbage,
	},
	{
		name: "oversized", about: "60 connects/s send frames and messages that are larger than allowed",
		clients: 16, prepare: prepareOversized, client: oversized,
	},
	{
		name: "closers", about: "500 connects/s begin a close handshake and never end the connection",
		clients: 16, client: closers,
	},
	{
		name: "duplicates", about: "500 connects/s with the same client ID",
		clients: 16, server: control.Config{Authenticate: true}, client: duplicates,
	},
}

// attackNamed returns nil if there is none.
func attackNamed(name string) *attack {
	for i := range attacks {
		if attacks[i].name == name {
			return &attacks[i]
		}
	}
	return nil
}
