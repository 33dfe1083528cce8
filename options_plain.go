// Code generated from the fields of Config by configgen; DO NOT EDIT.

package ws

import (
	"io/fs"
	"log/slog"
	"time"
)

// WithMaxConnections sets Config.MaxConnections.
func WithMaxConnections(n int) Option {
	return func(c *Config) { c.MaxConnections = n }
}

// WithHeartbeatInterval sets Config.HeartbeatInterval.
func WithHeartbeatInterval(d time.Duration) Option {
	return func(c *Config) { c.HeartbeatInterval = d }
}

// WithHeartbeatTimeout sets Config.HeartbeatTimeout.
func WithHeartbeatTimeout(d time.Duration) Option {
	return func(c *Config) { c.HeartbeatTimeout = d }
}

// WithMessageSizeLimit sets Config.MessageSizeLimit.
func WithMessageSizeLimit(n int64) Option {
	return func(c *Config) { c.MessageSizeLimit = n }
}

// WithMessageQueueSize sets Config.MessageQueueSize.
func WithMessageQueueSize(n int) Option {
	return func(c *Config) { c.MessageQueueSize = n }
}

// WithQueueBytes sets Config.QueueBytes.
func WithQueueBytes(n int64) Option {
	return func(c *Config) { c.QueueBytes = n }
}

// WithHighQueueSize sets Config.HighQueueSize.
func WithHighQueueSize(n int) Option {
	return func(c *Config) { c.HighQueueSize = n }
}

// WithHighQueueBytes sets Config.HighQueueBytes.
func WithHighQueueBytes(n int64) Option {
	return func(c *Config) { c.HighQueueBytes = n }
}

// WithQueueBudget sets Config.QueueBudget.
func WithQueueBudget(n int64) Option {
	return func(c *Config) { c.QueueBudget = n }
}

// WithOverflowPolicy sets Config.OverflowPolicy.
func WithOverflowPolicy(v OverflowPolicy) Option {
	return func(c *Config) { c.OverflowPolicy = v }
}

// WithHighWaterMark sets Config.HighWaterMark.
func WithHighWaterMark(share float64) Option {
	return func(c *Config) { c.HighWaterMark = share }
}

// WithLowWaterMark sets Config.LowWaterMark.
func WithLowWaterMark(share float64) Option {
	return func(c *Config) { c.LowWaterMark = share }
}

// WithHighWaterAge sets Config.HighWaterAge.
func WithHighWaterAge(d time.Duration) Option {
	return func(c *Config) { c.HighWaterAge = d }
}

// WithUnsentBytes sets Config.UnsentBytes.
func WithUnsentBytes(n int) Option {
	return func(c *Config) { c.UnsentBytes = n }
}

// WithOnSlow sets Config.OnSlow.
func WithOnSlow(v func(c *Client, queuedBytes int)) Option {
	return func(c *Config) { c.OnSlow = v }
}

// WithOnDrain sets Config.OnDrain.
func WithOnDrain(v func(c *Client)) Option {
	return func(c *Config) { c.OnDrain = v }
}

// WithInboundBudget sets Config.InboundBudget.
func WithInboundBudget(n int64) Option {
	return func(c *Config) { c.InboundBudget = n }
}

// WithMessageTimeout sets Config.MessageTimeout.
func WithMessageTimeout(d time.Duration) Option {
	return func(c *Config) { c.MessageTimeout = d }
}

// WithWriteTimeout sets Config.WriteTimeout.
func WithWriteTimeout(d time.Duration) Option {
	return func(c *Config) { c.WriteTimeout = d }
}

// WithHandshakeTimeout sets Config.HandshakeTimeout.
func WithHandshakeTimeout(d time.Duration) Option {
	return func(c *Config) { c.HandshakeTimeout = d }
}

// WithCloseTimeout sets Config.CloseTimeout.
func WithCloseTimeout(d time.Duration) Option {
	return func(c *Config) { c.CloseTimeout = d }
}

// WithDuplicateID sets Config.DuplicateID.
func WithDuplicateID(v DuplicateIDPolicy) Option {
	return func(c *Config) { c.DuplicateID = v }
}

// WithOnConnect sets Config.OnConnect.
func WithOnConnect(v func(*Client) error) Option {
	return func(c *Config) { c.OnConnect = v }
}

// WithMetrics sets Config.Metrics.
func WithMetrics(v Metrics) Option {
	return func(c *Config) { c.Metrics = v }
}

// WithUnixSocketMode sets Config.UnixSocketMode.
func WithUnixSocketMode(v fs.FileMode) Option {
	return func(c *Config) { c.UnixSocketMode = v }
}

// WithSimnet sets Config.Simnet.
func WithSimnet(v *Simnet) Option {
	return func(c *Config) { c.Simnet = v }
}

// WithTLSHandshakes sets Config.TLSHandshakes.
func WithTLSHandshakes(n int) Option {
	return func(c *Config) { c.TLSHandshakes = n }
}

// WithLoops sets Config.Loops.
func WithLoops(n int) Option {
	return func(c *Config) { c.Loops = n }
}

// WithRoomShards sets Config.RoomShards.
func WithRoomShards(n int) Option {
	return func(c *Config) { c.RoomShards = n }
}

// WithHandlerMode sets Config.HandlerMode.
func WithHandlerMode(v HandlerMode) Option {
	return func(c *Config) { c.HandlerMode = v }
}

// WithWorkers sets Config.Workers.
func WithWorkers(n int) Option {
	return func(c *Config) { c.Workers = n }
}

// WithMailboxSize sets Config.MailboxSize.
func WithMailboxSize(n int) Option {
	return func(c *Config) { c.MailboxSize = n }
}

// WithMailboxBytes sets Config.MailboxBytes.
func WithMailboxBytes(n int64) Option {
	return func(c *Config) { c.MailboxBytes = n }
}

// WithRateLimit sets Config.RateLimit.
func WithRateLimit(v RateLimit) Option {
	return func(c *Config) { c.RateLimit = v }
}

// WithControlFrameLimit sets Config.ControlFrameLimit.
func WithControlFrameLimit(n int) Option {
	return func(c *Config) { c.ControlFrameLimit = n }
}

// WithLogger sets Config.Logger.
func WithLogger(v *slog.Logger) Option {
	return func(c *Config) { c.Logger = v }
}
