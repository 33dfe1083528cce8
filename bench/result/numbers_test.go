//go:build linux

package result

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMedian(t *testing.T) {
	assert.Zero(t, Median(nil))
	assert.InDelta(t, 3.0, Median([]float64{9, 1, 3}), 0)
	assert.InDelta(t, 2.5, Median([]float64{9, 2, 1, 3}), 0)
}
