//go:build linux

package tune

import (
	"fmt"
	"slices"

	"github.com/qi-realtime/ws/bench/result"
)

const (
	// leastGain is the ratio from which on a gain is worth an option.
	leastGain = 1.03
	// leastRounds is how many rounds a gain must be seen in: if there is none,
	// each of them shows one by chance with a probability of one half.
	leastRounds = 5
	// leastCoverage is the least probability that the interval contains the median.
	leastCoverage = 0.93
)

// gain compares one figure of two settings that ran in turns. Lower figures are
// better: above 1 the other setting is better than the base.
type gain struct {
	median, low, high float64 // of the ratio base / other in each round; low to high has the true median
	rounds            int
}

// newGain compares two settings, round by round, so that other work of the
// machine in a round affects both.
func newGain(base, other []float64) gain {
	ratios := make([]float64, min(len(base), len(other)))
	for i := range ratios {
		ratios[i] = result.Ratio(base[i], other[i])
	}
	low, high := interval(ratios)
	return gain{result.Median(ratios), low, high, len(ratios)}
}

// real reports whether the gain is more than noise.
func (g gain) real() bool { return g.rounds >= leastRounds && g.low > 1 && g.median >= leastGain }

// loss reports whether the other setting is worse, by more than noise.
func (g gain) loss() bool { return g.rounds >= leastRounds && g.high < 1 && g.median <= 1/leastGain }

// verdict is the decision in a word.
func (g gain) verdict() string {
	switch {
	case g.real():
		return "gain"
	case g.loss():
		return "loss"
	}
	return "none (noise)"
}

func (g gain) String() string {
	return fmt.Sprintf("%.1f %% less (%.1f to %.1f %% in %d rounds)",
		saved(g.median), saved(g.low), saved(g.high), g.rounds)
}

// saved is the ratio base / other as the percentage of the base that the other
// does without; negative if it takes more.
func saved(r float64) float64 { return (1 - result.Ratio(1, r)) * 100 }

// interval is the narrowest interval between two of the values, as many from
// either end, that contains the median of their distribution with probability
// leastCoverage: the interval of the sign test, which assumes no distribution.
// Fewer than 5 values do not reach it.
func interval(values []float64) (low, high float64) {
	if len(values) == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(values))
	n, outside, choose := len(s), 0.0, 1.0 // choose is n over k
	k := 0
	for ; k < (n-1)/2; k++ {
		choose = choose * float64(n-k) / float64(k+1)
		outside += choose // the probability, in units of 2^-n, that k+1 values lie on one side
		if 1-2*(outside+1)/pow2(n) < leastCoverage {
			break
		}
	}
	return s[k], s[n-1-k]
}

func pow2(n int) float64 {
	p := 1.0
	for range n {
		p *= 2
	}
	return p
}
