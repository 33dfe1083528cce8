//go:build linux

package result

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Cell is a cell that the rows of several processes make one of.
type Cell struct {
	How    string  // sum, max, mean or quantile
	Value  float64 // in this process
	Whole  bool    // it is an int
	Weight float64 // mean: of this process
	Hist   []byte  // quantile: all values, on their way ...
	Q      float64 // ... and which it is

	hist Histogram // quantile: all values in this process
}

// number is a type whose values can be added.
type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

func mergeableOf[T number](how string, v T) Cell {
	_, float := any(v).(float64)
	return Cell{How: how, Value: float64(v), Whole: !float}
}

// SumOf is a cell whose values add up.
func SumOf[T number](v T) Cell { return mergeableOf("sum", v) }

// MaxOf returns a cell that merges to its highest value.
func MaxOf[T number](v T) Cell { return mergeableOf("max", v) }

// MeanOf is a cell whose mean counts, by weight.
func MeanOf(v, weight float64) Cell { return Cell{How: "mean", Value: v, Weight: weight} }

// MillisOf is a cell that shows a quantile in milliseconds; 1 is the maximum.
func MillisOf(h Histogram, q float64) Cell {
	m := Cell{How: "quantile", Q: q, hist: h}
	m.Value = m.of(h)
	return m
}

func (m *Cell) of(h Histogram) float64 {
	if m.Q == 1 {
		return Millis(h.Max())
	}
	return Millis(h.Quantile(m.Q))
}

// histogram returns the durations behind a quantile, of this process or another.
func (m *Cell) histogram() (Histogram, error) {
	if m.Hist == nil {
		return m.hist, nil
	}
	h, err := hdrhistogram.Decode(m.Hist)
	if err != nil {
		return Histogram{}, fmt.Errorf("a histogram of another process: %w", err)
	}
	return Histogram{h}, nil
}

// value returns the value that the table shows.
func (m *Cell) value() any {
	if m.Whole {
		return int64(m.Value)
	}
	return m.Value
}

// merge adds the cells of other processes.
func (m *Cell) merge(others []Cell) error {
	all := append([]Cell{*m}, others...)
	h := NewHistogram()
	var sum, highest, weighted, weights float64
	for _, o := range all {
		sum, highest = sum+o.Value, max(highest, o.Value)
		weighted, weights = weighted+o.Value*o.Weight, weights+o.Weight
		if m.How == "quantile" {
			other, err := o.histogram()
			if err != nil {
				return err
			}
			h.Add(other)
		}
	}
	switch m.How {
	case "sum":
		m.Value = sum
	case "max":
		m.Value = highest
	case "mean":
		m.Value, m.Weight = Ratio(weighted, weights), weights
	case "quantile":
		m.Value = m.of(h)
	}
	return nil
}
