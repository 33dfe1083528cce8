package inspect

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/qi-realtime/ws"
)

// figures are numbers by name; those with a reason are a map of the reasons.
type figures map[string]any

func (f figures) add(figure ws.Figure, value float64) {
	name := strings.TrimPrefix(figure.Name, "loop_")
	if figure.Reason == "" {
		f[name] = value
		return
	}
	reasons, ok := f[name].(map[string]float64)
	if !ok {
		reasons = make(map[string]float64)
		f[name] = reasons
	}
	reasons[figure.Reason] += value
}

// snapshot is the answer of api/stats. Immutable.
type snapshot struct {
	At       int64     `json:"at"`
	MayClose bool      `json:"may_close"`
	Drain    drain     `json:"drain"`
	Manager  figures   `json:"manager"`
	Loops    []figures `json:"loops"`
}

// drain is the progress of Manager.Drain. Immutable.
type drain struct {
	Phase     string  `json:"phase"`
	Total     int     `json:"total"`
	Moved     int     `json:"moved"`
	Closed    int     `json:"closed"`
	Forced    int     `json:"forced"`
	Left      int     `json:"left"`
	Remaining int     `json:"remaining"`
	Pace      float64 `json:"clients_per_second"`
}

func (h *handler) drain() drain {
	d := h.manager.DrainStats()
	return drain{d.Phase.String(), d.Total, d.Moved, d.Closed, d.Forced, d.Left, d.Remaining, d.Pace}
}

// takeStats takes a snapshot and records its counters.
func (h *handler) takeStats() snapshot {
	s := snapshot{At: time.Now().UnixMilli(), MayClose: h.mayClose, Drain: h.drain(), Manager: make(figures)}
	st := h.manager.Stats()
	for range st.Loops {
		s.Loops = append(s.Loops, make(figures))
	}
	point := newPoint(s.At)
	for figure, value := range st.Figures() {
		if math.IsNaN(value) || math.IsInf(value, 0) { // JSON has none
			value = 0
		}
		if figure.Loop < 0 {
			s.Manager.add(figure, value)
		} else {
			s.Loops[figure.Loop].add(figure, value)
		}
		point.add(figure, value)
	}
	h.history.add(point)
	return s
}

func (h *handler) serveStats(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, h.stats.get())
}

// description is the answer of api/figures for one name. Immutable.
type description struct {
	Help    string `json:"help"`
	Counter bool   `json:"counter"`
}

func (h *handler) serveFigures(w http.ResponseWriter, _ *http.Request) {
	descriptions := make(map[string]description)
	st := h.manager.Stats()
	for figure := range st.Figures() {
		descriptions[figure.Name] = description{figure.Help, figure.Counter}
	}
	reply(w, http.StatusOK, descriptions)
}

const (
	// maxPoints is the number of points that are kept: five minutes, as often as a page asks.
	maxPoints = 300
	// historyTime is the age at which points are forgotten.
	historyTime = 5 * time.Minute
)

// series names the values of a counter, those of all loops together. Immutable.
type series struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
}

// point is the values of all counters at one time. Not safe for concurrent use.
type point struct {
	at     int64
	series []series
	places map[series]int
	values []float64
}

func newPoint(at int64) *point { return &point{at: at, places: make(map[series]int)} }

func (p *point) add(figure ws.Figure, value float64) {
	if !figure.Counter {
		return
	}
	s := series{strings.TrimPrefix(figure.Name, "loop_"), figure.Reason}
	i, known := p.places[s]
	if !known {
		i = len(p.values)
		p.places[s], p.series, p.values = i, append(p.series, s), append(p.values, 0)
	}
	p.values[i] += value
}

// history is the points of the last minutes. Each has the same series: the figures of a Manager
// do not change. Safe for concurrent use.
type history struct {
	mu     sync.Mutex
	series []series    // guarded by mu
	points [][]float64 // guarded by mu; of each its time and values
}

func (h *history) add(p *point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.series = p.series
	oldest := float64(p.at - historyTime.Milliseconds())
	for len(h.points) > 0 && (len(h.points) >= maxPoints || h.points[0][0] < oldest) {
		h.points = h.points[1:]
	}
	h.points = append(h.points, append([]float64{float64(p.at)}, p.values...))
}

// historyAnswer is the answer of api/history. Immutable.
type historyAnswer struct {
	Series []series    `json:"series"`
	Points [][]float64 `json:"points"`
}

// after returns the points that are later.
func (h *history) after(at float64) historyAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := historyAnswer{Series: h.series, Points: [][]float64{}}
	for _, p := range h.points {
		if p[0] > at {
			answer.Points = append(answer.Points, p)
		}
	}
	return answer
}

func (h *handler) serveHistory(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseFloat(r.FormValue("after"), 64)
	if err != nil && r.FormValue("after") != "" {
		fail(w, http.StatusBadRequest, "after is a time in milliseconds")
		return
	}
	h.stats.get() // records a point
	reply(w, http.StatusOK, h.history.after(after))
}
