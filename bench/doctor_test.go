//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDoctor asks for more than any machine allows: that is advice, no error.
func TestDoctor(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, bench(t.Context(), []string{"-json", "doctor", "-conns", "1000000000", "-measure=false"}, &out))
	var got struct {
		Results []struct {
			resultTable
			Notes []string
		}
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.Len(t, got.Results, 1)
	rows := got.Results[0].Rows
	i := slices.IndexFunc(rows, func(row map[string]any) bool { return row["limit"] == "RLIMIT_NOFILE" })
	require.GreaterOrEqual(t, i, 0)
	assert.Equal(t, "too low", rows[i]["verdict"])
	assert.Greater(t, rows[i]["allows"], 0.0)
	assert.Contains(t, got.Results[0].Notes,
		"  LimitNOFILE=1000001024    # systemd: [Service] of its unit, then systemctl daemon-reload")

	out.Reset()
	require.NoError(t, bench(t.Context(), []string{"doctor", "-measure=false"}, &out))
	assert.Contains(t, out.String(), "The limits allow ")
	require.Error(t, bench(t.Context(), []string{"doctor", "-conns", "-1"}, &out))
}
