package main

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/qi-realtime/ws/bench/control"
)

const (
	// defaultQueue bounds a client's queue where a library's documentation leaves
	// the number to its user. It is the bound of gorilla's chat example and of melody.
	defaultQueue = 256
	// maxMessage bounds the messages of a client.
	maxMessage = 2 << 20
)

func queueSize(cfg *control.Config) int {
	if cfg.Queue > 0 {
		return cfg.Queue
	}
	return defaultQueue
}

// counts are the report's figures for a library that keeps no count itself.
type counts struct {
	clients, members atomic.Int64
	dropped          atomic.Uint64
}

// Report implements control.Server.
func (c *counts) Report(r *control.Report) {
	r.Clients, r.Members = int(c.clients.Load()), int(c.members.Load())
	r.Dropped = c.dropped.Load()
}

// rooms holds the members of each room, for the libraries that leave that to their
// user. A room is a slice, so that a fan-out walks memory in order. Safe for
// concurrent use.
type rooms[M comparable] struct {
	counts
	mu     sync.RWMutex
	of     map[int]*roomOf[M] // guarded by mu
	joined map[M][]int        // guarded by mu
}

// roomOf is one room; the mutex of rooms guards it.
type roomOf[M comparable] struct {
	members []M
	at      map[M]int // index in members
}

// join puts m into a room, once.
func (r *rooms[M]) join(m M, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of, r.joined = make(map[int]*roomOf[M]), make(map[M][]int)
	}
	in := r.of[room]
	if in == nil {
		in = &roomOf[M]{at: make(map[M]int)}
		r.of[room] = in
	}
	if _, ok := in.at[m]; ok {
		return
	}
	in.at[m] = len(in.members)
	in.members = append(in.members, m)
	r.joined[m] = append(r.joined[m], room)
	r.members.Add(1)
}

// leave takes m out of all its rooms.
func (r *rooms[M]) leave(m M) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, room := range r.joined[m] {
		in := r.of[room]
		i, last := in.at[m], len(in.members)-1
		in.members[i] = in.members[last]
		in.at[in.members[i]] = i
		in.members = slices.Delete(in.members, last, last+1)
		delete(in.at, m)
		r.members.Add(-1)
	}
	delete(r.joined, m)
}

// each calls f, which must neither block nor join nor leave, for each member.
func (r *rooms[M]) each(room int, f func(M)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if in := r.of[room]; in != nil {
		for _, m := range in.members {
			f(m)
		}
	}
}

// snapshot returns the members of a room.
func (r *rooms[M]) snapshot(room int) []M {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if in := r.of[room]; in != nil {
		return slices.Clone(in.members)
	}
	return nil
}

// serveHTTP serves handler at /ws with net/http on a free port, until the
// process ends.
func serveHTTP(handler http.HandlerFunc) (addr string, err error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", handler)
	go func() { _ = http.Serve(ln, mux) }() // ends with the process
	return ln.Addr().String(), nil
}
