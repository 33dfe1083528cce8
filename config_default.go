package ws

import (
	"crypto/tls"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxConnections:    10_000,
		HeartbeatInterval: 30 * time.Second,
		HeartbeatTimeout:  90 * time.Second,
		MessageSizeLimit:  512 << 10,
		MessageQueueSize:  256,
		QueueBytes:        1 << 20,
		HighQueueSize:     64,
		HighQueueBytes:    256 << 10,
		OverflowPolicy:    DropNewest,
		HighWaterMark:     0.5,
		LowWaterMark:      0.1,
		HighWaterAge:      2 * time.Second,
		UnsentBytes:       64 << 10,
		MessageTimeout:    time.Minute,
		WriteTimeout:      time.Minute,
		HeadBytes:         16 << 10,
		HeadLines:         128,
		HandshakeTimeout:  10 * time.Second,
		CloseTimeout:      5 * time.Second,
		Room:              defaultRoomConfig,
		Broadcast:         BroadcastConfig{QueueSize: 1024, BatchSize: defaultBatchSize, Timeout: 5 * time.Second},
		TLSHandshakes:     256,
		Paths:             []string{"/ws"},
		LivePath:          "/healthz",
		ReadyPath:         "/readyz",
		ControlFrameLimit: 10_000,
		MailboxSize:       64,
		MailboxBytes:      1 << 20,
	}
}

var defaultRoomConfig = RoomConfig{
	MaxRoomsPerClient: 1024, MaxRoomName: 256, CleanupInterval: 5 * time.Minute, EmptyRoomTTL: 10 * time.Minute,
}

// defaultBatchSize stands for a Broadcast.BatchSize of 0.
const defaultBatchSize = 64

// maxLoops is the largest number of loops of gnet.
const maxLoops = 256

// withDefaults returns a copy in which defaults stand in place of zeros.
func (c *Config) withDefaults() Config {
	cfg := *c
	if cfg.Loops == 0 {
		cfg.Loops = min(runtime.GOMAXPROCS(0), maxLoops)
	}
	if cfg.RoomShards == 0 {
		for cfg.RoomShards = 1; cfg.RoomShards < 4*cfg.Loops; {
			cfg.RoomShards *= 2
		}
	}
	if cfg.Broadcast.BatchSize == 0 {
		cfg.Broadcast.BatchSize = defaultBatchSize
	}
	if cfg.Workers == 0 {
		cfg.Workers = 256 * runtime.GOMAXPROCS(0)
	}
	if cfg.ListenAddr != "" && !strings.Contains(cfg.ListenAddr, "://") {
		cfg.ListenAddr = "tcp://" + cfg.ListenAddr
	}
	cfg.Compression = cfg.Compression.withDefaults()
	cfg.Admission = cfg.Admission.withDefaults()
	if cfg.OverflowPolicy == 0 {
		cfg.OverflowPolicy = DropNewest
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NoopMetrics{}
	}
	cfg.Logger = loglimit.New(cfg.Logger)
	if cfg.TLSConfig != nil {
		cfg.TLSConfig = c.tlsConfig()
	}
	cfg.OriginWhitelist = slices.Clone(c.OriginWhitelist)
	cfg.Paths = slices.Clone(c.Paths)
	cfg.Subprotocols = slices.Clone(c.Subprotocols)
	return cfg
}

// tlsConfig returns the copy of TLSConfig that the listener uses.
func (c *Config) tlsConfig() *tls.Config {
	t := c.TLSConfig.Clone()
	if len(t.NextProtos) == 0 {
		t.NextProtos = []string{"http/1.1"}
	}
	t.DynamicRecordSizingDisabled = true // a batch of messages is one record
	return t
}
