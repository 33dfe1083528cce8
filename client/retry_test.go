package client_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/client"
)

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	closed := func(code int, reason string) error { return &client.CloseError{Code: code, Reason: reason} }
	type want struct {
		stop, refresh bool
		after         time.Duration
	}
	for name, test := range map[string]struct {
		err      error
		failures int
		want     want
	}{
		"network":                {errors.New("refused"), 0, want{after: 500 * ms}},
		"many failures":          {errors.New("refused"), 1 << 40, want{after: 30 * time.Second}},
		"1012 with retry_ms":     {closed(1012, `{"retry_ms":1840}`), 9, want{after: 1840 * ms}},
		"1001 without retry_ms":  {closed(1001, "bye"), 1, want{after: time.Second}},
		"1013 with retry_ms":     {closed(1013, `{"retry_ms":1}`), 1, want{after: ms}},
		"1013 without":           {closed(1013, ""), 1, want{after: 30 * time.Second}},
		"negative retry_ms":      {closed(1012, `{"retry_ms":-5}`), 1, want{}},
		"huge retry_ms":          {closed(1012, `{"retry_ms":9223372036854775807}`), 1, want{after: 24 * time.Hour}},
		"retry_ms that is no ms": {closed(1012, `{"retry_ms":1e3}`), 0, want{after: 500 * ms}},
		"4401":                   {closed(4401, ""), 0, want{refresh: true, after: 500 * ms}},
		"403":                    {&client.HandshakeError{Status: 403}, 0, want{stop: true, after: 500 * ms}},
		"401":                    {&client.HandshakeError{Status: 401}, 0, want{refresh: true, after: 500 * ms}},
		"503 with Retry-After": {
			&client.HandshakeError{Status: 503, RetryAfter: time.Second}, 0, want{after: 1500 * ms},
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop, refresh, after := client.Decide(test.err, test.failures, 1)
			assert.Equal(t, test.want, want{stop, refresh, after})
		})
	}
	stopping := []int{1000, 1002, 1003, 1007, 1008, 1009, 1010, 4409}
	for code := 1000; code < 5000; code++ {
		stop, _, _ := client.Decide(closed(code, ""), 0, 0.5)
		assert.Equal(t, slices.Contains(stopping, code) || code >= 4500, stop, code)
	}
}
