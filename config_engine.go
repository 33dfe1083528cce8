package ws

import (
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// engine returns the part of the configuration that the engine needs. Fields have the same
// names there, without the dot of a nested one.
func (c *Config) engine() engine.Config {
	return engine.Config{
		ListenAddr:           c.ListenAddr,
		UnixSocketMode:       c.UnixSocketMode,
		TLSConfig:            c.TLSConfig,
		TLSHandshakes:        c.TLSHandshakes,
		AdmissionPerSecond:   c.Admission.PerSecond,
		AdmissionBurst:       c.Admission.Burst,
		Loops:                c.Loops,
		BroadcastQueueSize:   c.Broadcast.QueueSize,
		BroadcastBatchSize:   c.Broadcast.BatchSize,
		BroadcastTimeout:     c.Broadcast.Timeout,
		MessageQueueSize:     c.MessageQueueSize,
		QueueBytes:           c.QueueBytes,
		HighQueueSize:        c.HighQueueSize,
		HighQueueBytes:       c.HighQueueBytes,
		QueueBudget:          c.QueueBudget,
		OverflowPolicy:       engine.Policy(c.OverflowPolicy),
		HighWaterMark:        c.HighWaterMark,
		LowWaterMark:         c.LowWaterMark,
		HighWaterAge:         c.HighWaterAge,
		UnsentBytes:          c.UnsentBytes,
		RecvBuffer:           c.RecvBuffer,
		SendBuffer:           c.SendBuffer,
		MessageSizeLimit:     c.MessageSizeLimit,
		MailboxBytes:         c.MailboxBytes,
		ControlFrameLimit:    c.ControlFrameLimit,
		CompressionLevel:     c.Compression.Level,
		CompressionThreshold: c.Compression.Threshold,
		CompressionMaxRatio:  c.Compression.MaxRatio,
		HeadLimits:           codec.HeadLimits{Bytes: c.HeadBytes, Lines: c.HeadLines},
		HandshakeTimeout:     c.HandshakeTimeout,
		HeartbeatInterval:    c.HeartbeatInterval,
		HeartbeatTimeout:     c.HeartbeatTimeout,
		InboundBudget:        c.InboundBudget,
		MessageTimeout:       c.MessageTimeout,
		WriteTimeout:         c.WriteTimeout,
		CloseTimeout:         c.CloseTimeout,
		Logger:               c.Logger,
		Simnet:               c.Simnet.engine(),
	}
}
