// Package room holds the members of rooms. It knows no connections: the member is a type
// parameter, and the caller carries the tasks between goroutines and event loops.
//
// A room has two views. The roster, guarded by Room.mu, is decided at once on any goroutine.
// It answers joins, leaves, limits and lists. The member tables, one for each event loop with
// members, are dense slices that only their loop touches, without a lock. They follow the
// roster later, through tasks that the caller posts to the loops:
//
//	any goroutine                          the member's loop, in the order posted
//	mem, err := r.Join(m, loop)   ──post─▶ r.InsertInLoop(mem)
//	r.Leave(mem)                  ──post─▶ r.RemoveInLoop(mem)
//	for loop := range r.Loops     ──post─▶ for _, mem := range r.TableInLoop(loop)
//
// Lock order: directory shard, then Room.mu.
//
// The package is a part of ws with no promise of compatibility. Programs use package ws.
package room
