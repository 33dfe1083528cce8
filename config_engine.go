// Code generated from the fields of Config by configgen; DO NOT EDIT.

package ws

import "github.com/qi-realtime/ws/engine"

// engine returns the part of the configuration that the engine needs.
func (c *Config) engine() engine.Config {
	return engine.Config{
		ListenAddr:           c.ListenAddr,
		UnixSocketMode:       c.UnixSocketMode,
		Loops:                c.Loops,
		BroadcastQueueSize:   c.Broadcast.QueueSize,
		BroadcastBatchSize:   c.Broadcast.BatchSize,
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
		CompressionLevel:     c.Compression.Level,
		CompressionThreshold: c.Compression.Threshold,
		CompressionMaxRatio:  c.Compression.MaxRatio,
		MessageSizeLimit:     c.MessageSizeLimit,
		MailboxBytes:         c.MailboxBytes,
		ControlFrameLimit:    c.ControlFrameLimit,
		AdmissionPerSecond:   c.Admission.PerSecond,
		AdmissionBurst:       c.Admission.Burst,
		TLSConfig:            c.TLSConfig,
		TLSHandshakes:        c.TLSHandshakes,
		HeadBytes:            c.HeadBytes,
		HeadLines:            c.HeadLines,
		HandshakeTimeout:     c.HandshakeTimeout,
		HeartbeatInterval:    c.HeartbeatInterval,
		InboundBudget:        c.InboundBudget,
		MessageTimeout:       c.MessageTimeout,
		WriteTimeout:         c.WriteTimeout,
		HeartbeatTimeout:     c.HeartbeatTimeout,
		CloseTimeout:         c.CloseTimeout,
		BroadcastTimeout:     c.Broadcast.Timeout,
		Logger:               c.Logger,
		Simnet:               c.Simnet.engine(),
	}
}
