package client

import "time"

// WithRandom sets the source of random numbers from 0 to 1.
func WithRandom(fn func() float64) Option { return func(s *settings) { s.random = fn } }

// WithMaxCallbacks sets the number of waiting callbacks from which on the client reads no more.
func WithMaxCallbacks(n int) Option { return func(s *settings) { s.maxCallbacks = n } }

// Decide returns the fields of a decision.
func Decide(err error, failures int, random float64) (stop, refresh bool, after time.Duration) {
	d := decide(err, failures, random)
	return d.stop, d.refresh, d.after
}

// Rooms returns the number of rooms that the client knows.
func (c *Client) Rooms() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rooms)
}
