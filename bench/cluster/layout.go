//go:build linux

package cluster

import (
	"math/rand/v2"

	"github.com/qi-realtime/ws/bench/control"
)

// layout says where the members of rooms are, and who publishes. Immutable.
type layout struct {
	name, title string
	members     func(o *run) int
	rooms       func(o *run) int
	apart       bool // the members of a room are on one node, and each node publishes to a part of the rooms
	rate        func(o *run) float64
	outstanding int // at full speed, a multiple of -outstanding
}

var layouts = []*layout{
	{
		name: "room", title: "One room with members on all nodes",
		members: func(o *run) int { return o.conns }, rooms: one,
		rate: func(o *run) float64 { return o.roomRate }, outstanding: 1,
	},
	{
		name: "rooms", title: "Many rooms, each with its members on one node",
		members: func(o *run) int { return o.conns }, rooms: func(o *run) int { return o.rooms }, apart: true,
		rate: func(o *run) float64 { return o.roomsRate }, outstanding: 16,
	},
	{
		name: "link", title: "One room with one member on each node",
		members: func(o *run) int { return o.nodes }, rooms: one,
		rate: func(o *run) float64 { return o.linkRate }, outstanding: 16,
	},
}

func one(*run) int { return 1 }

// kind is a load on a layout, at full speed or at a fixed rate. Immutable.
type kind struct {
	*layout
	fixed bool
}

// kinds are the loads of all layouts.
func kinds() (kinds []kind) {
	for _, l := range layouts {
		kinds = append(kinds, kind{l, false}, kind{l, true})
	}
	return kinds
}

// loadNames are the names of all loads.
func loadNames() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.id())
	}
	return names
}

// id returns the name in -loads.
func (k kind) id() string {
	if k.fixed {
		return k.name + "-rate"
	}
	return k.name
}

// heading returns the title of the table.
func (k kind) heading() string {
	if k.fixed {
		return k.title + ", at a fixed rate"
	}
	return k.title + ", at full speed"
}

// command returns the command for all publishers together. A member that has not read the latest
// messages must find them in the history.
func (k kind) command(o *run, history bool) control.Command {
	c := control.Command{Name: "publish", Size: o.size}
	if k.fixed {
		c.Rate = k.rate(o)
	} else {
		c.Outstanding = k.most(o)
	}
	if history {
		c.Outstanding = min(c.Outstanding, historySize/4*k.rooms(o))
	}
	return c
}

// most returns the number of messages that not all members have, at most.
func (l *layout) most(o *run) int { return l.outstanding * o.outstanding }

// publisher returns the node that publishes to a room.
func (l *layout) publisher(room, nodes int) int {
	if l.apart {
		return room % nodes
	}
	return 0
}

// seats returns the rooms of the members of each node.
func (l *layout) seats(o *run, nodes int) [][]int32 {
	seats := make([][]int32, nodes)
	rooms := l.rooms(o)
	for n := range l.members(o) {
		room, node := n%rooms, n%nodes
		if l.apart { // each publisher has rooms on all nodes
			node = room / nodes % nodes
		}
		seats[node] = append(seats[node], int32(room))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range seats {
		r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	}
	return seats
}
