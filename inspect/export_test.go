package inspect

import (
	"net/http"
	"time"
)

// OnStep makes fn run between two steps of a walk.
func OnStep(h http.Handler, fn func()) { h.(*handler).onStep = fn }

// Expire makes the next request compute its result, as if a second had passed.
func Expire(h http.Handler) {
	own := h.(*handler)
	own.stats.expire()
	own.rooms.expire()
	own.clients.expire()
}

func (s *shared[T]) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = time.Time{}
}

// Ranking opens ranking.
type Ranking struct{ r ranking[string] }

func (r *Ranking) Add(score float64, id string) { r.r.add(score, id, id) }
func (r *Ranking) Sorted() []string             { return r.r.sorted() }

// MaxRanked is the length of a full Ranking.
const MaxRanked = maxRanked

// History opens history.
type History struct{ h history }

func (h *History) Add(at time.Time) { h.h.add(newPoint(at.UnixMilli())) }

func (h *History) Times() (times []time.Time) {
	for _, p := range h.h.after(0).Points {
		times = append(times, time.UnixMilli(int64(p[0])))
	}
	return times
}

// MatchAddress reports whether a client's address is the one that a viewer asks for.
func MatchAddress(want, address string) (match, ok bool) {
	matches, ok := addressMatcher(want)
	return ok && matches(address), ok
}
