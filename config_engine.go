package ws

import (
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// engine returns the part of the configuration that the engine needs.
func (c *Config) engine() engine.Config {
	return engine.Config{
		ListenAddr:       c.ListenAddr,
		UnixSocketMode:   c.UnixSocketMode,
		TLS:              c.TLSConfig,
		AdmitPerSecond:   c.Admission.PerSecond,
		AdmitBurst:       c.Admission.Burst,
		TLSHandshakes:    c.TLSHandshakes,
		Loops:            c.Loops,
		RingSize:         c.Broadcast.QueueSize,
		FanOutBatch:      c.Broadcast.BatchSize,
		QueueFrames:      c.MessageQueueSize,
		QueueBytes:       c.QueueBytes,
		HighFrames:       c.HighQueueSize,
		HighBytes:        c.HighQueueBytes,
		QueueBudget:      c.QueueBudget,
		Policy:           engine.Policy(c.OverflowPolicy),
		HighMark:         c.HighWaterMark,
		LowMark:          c.LowWaterMark,
		HighWaterAge:     c.HighWaterAge,
		UnsentBytes:      c.UnsentBytes,
		RecvBuffer:       c.RecvBuffer,
		SendBuffer:       c.SendBuffer,
		MessageBytes:     c.MessageSizeLimit,
		HeldBytes:        c.MailboxBytes,
		ControlFrames:    c.ControlFrameLimit,
		DeflateLevel:     c.Compression.Level,
		DeflateThreshold: c.Compression.Threshold,
		InflateRatio:     c.Compression.MaxRatio,
		HeadLimits:       codec.HeadLimits{Bytes: c.HeadBytes, Lines: c.HeadLines},
		HandshakeTimeout: c.HandshakeTimeout,
		PingInterval:     c.HeartbeatInterval,
		ReadTimeout:      c.HeartbeatTimeout,
		InboundBudget:    c.InboundBudget,
		MessageTimeout:   c.MessageTimeout,
		WriteTimeout:     c.WriteTimeout,
		CloseTimeout:     c.CloseTimeout,
		PublishTimeout:   c.Broadcast.Timeout,
		Logger:           c.Logger,
		Simnet:           c.Memory,
	}
}
