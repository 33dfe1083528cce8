package ws

import (
	"crypto/tls"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// setting is a row of the table of settings: a field of Config with its default and its
// bounds.
type setting struct {
	reset func()       // sets the default; nil if that is the zero value
	check func() error // nil if every value is valid
}

// settings is the one list of the defaults and bounds of c, in the order in which they are
// checked. To add an option, write
//
//  1. its field in Config, with a doc comment,
//  2. its row here,
//  3. its With function in options.go.
//
// An option of the event loops is a field of engine.Config as well, under the same name, and
// a line of Config.engine copies it.
func (c *Config) settings() []setting {
	return slices.Concat(c.connectionSettings(), c.handshakeSettings(), c.roomSettings(), c.serverSettings())
}

// connectionSettings are the settings of open connections and their queues.
func (c *Config) connectionSettings() []setting {
	return []setting{
		minimum("MaxConnections", &c.MaxConnections, 10_000, 1),
		minimum("HeartbeatInterval", &c.HeartbeatInterval, 30*time.Second, time.Millisecond),
		minimum("HeartbeatTimeout", &c.HeartbeatTimeout, 90*time.Second, time.Millisecond),
		rule("HeartbeatTimeout", "must exceed HeartbeatInterval",
			func() bool { return c.HeartbeatTimeout > c.HeartbeatInterval }),
		minimum("MessageSizeLimit", &c.MessageSizeLimit, 512<<10, 1),
		within("MessageQueueSize", &c.MessageQueueSize, 256, 1, 1<<20),
		within("QueueBytes", &c.QueueBytes, 1<<20, 1, 1<<38),
		within("HighQueueSize", &c.HighQueueSize, 64, 1, 1<<20),
		within("HighQueueBytes", &c.HighQueueBytes, 256<<10, 1, 1<<38),
		minimum("QueueBudget", &c.QueueBudget, 0, 0),
		initially(&c.OverflowPolicy, DropNewest),
		{check: func() error { return validatePolicy("OverflowPolicy", c.OverflowPolicy) }},
		initially(&c.HighWaterMark, 0.5),
		rule("HighWaterMark", "must be above 0 and at most 1",
			func() bool { return c.HighWaterMark > 0 && c.HighWaterMark <= 1 }),
		initially(&c.LowWaterMark, 0.1),
		rule("LowWaterMark", "must be above 0 and below HighWaterMark",
			func() bool { return c.LowWaterMark > 0 && c.LowWaterMark < c.HighWaterMark }),
		minimum("HighWaterAge", &c.HighWaterAge, 2*time.Second, 0),
		within("UnsentBytes", &c.UnsentBytes, 64<<10, 0, 1<<30),
		within("RecvBuffer", &c.RecvBuffer, 0, 0, 1<<30),
		within("SendBuffer", &c.SendBuffer, 0, 0, 1<<30),
		minimum("InboundBudget", &c.InboundBudget, 0, 0),
		minimum("MessageTimeout", &c.MessageTimeout, time.Minute, 0),
		minimum("WriteTimeout", &c.WriteTimeout, time.Minute, 0),
	}
}

// handshakeSettings are the settings of the opening handshake and of the close handshake.
func (c *Config) handshakeSettings() []setting {
	return []setting{
		within("HeadBytes", &c.HeadBytes, 16<<10, 1<<10, 256<<10),
		within("HeadLines", &c.HeadLines, 128, 16, 1024),
		minimum("HandshakeTimeout", &c.HandshakeTimeout, 10*time.Second, time.Millisecond),
		minimum("CloseTimeout", &c.CloseTimeout, 5*time.Second, time.Millisecond),
		rule("DuplicateID", "must be RefuseNew or ReplaceOld", func() bool { return c.DuplicateID <= ReplaceOld }),
		{check: c.validateOrigins},
		{check: c.validateSubprotocols},
	}
}

// roomSettings are the settings of rooms and of publishing.
func (c *Config) roomSettings() []setting {
	r, b := &c.Room, &c.Broadcast
	return []setting{
		minimum("Room.MaxRoomSize", &r.MaxRoomSize, 0, 0),
		minimum("Room.MaxRoomsPerClient", &r.MaxRoomsPerClient, 1024, 0),
		minimum("Room.MaxRoomName", &r.MaxRoomName, 256, 0),
		minimum("Room.CleanupInterval", &r.CleanupInterval, 5*time.Minute, time.Millisecond),
		minimum("Room.EmptyRoomTTL", &r.EmptyRoomTTL, 10*time.Minute, 0),
		within("Broadcast.QueueSize", &b.QueueSize, 1024, 1, 1<<20),
		within("Broadcast.BatchSize", &b.BatchSize, defaultBatchSize, 0, 4096),
		minimum("Broadcast.Timeout", &b.Timeout, 5*time.Second, time.Millisecond),
	}
}

// serverSettings are the settings of the listener, the event loops and the handlers.
func (c *Config) serverSettings() []setting {
	return []setting{
		{check: c.validateListenAddr},
		rule("UnixSocketMode", "must have permission bits only",
			func() bool { return c.UnixSocketMode&^fs.ModePerm == 0 }),
		rule("Simnet", "excludes ListenAddr", func() bool { return c.Simnet == nil || c.ListenAddr == "" }),
		{check: c.validateTLS},
		minimum("TLSHandshakes", &c.TLSHandshakes, 256, 1),
		initially(&c.Paths, []string{"/ws"}),
		initially(&c.LivePath, "/healthz"),
		initially(&c.ReadyPath, "/readyz"),
		{check: c.validatePaths},
		within("Loops", &c.Loops, 0, 0, maxLoops),
		within("RoomShards", &c.RoomShards, 0, 0, 1<<20),
		rule("RoomShards", "must be a power of two", func() bool { return c.RoomShards&(c.RoomShards-1) == 0 }),
		rule("HandlerMode", "must be Pooled or Inline", func() bool { return c.HandlerMode <= Inline }),
		minimum("Workers", &c.Workers, 0, 0),
		minimum("MailboxSize", &c.MailboxSize, 64, 1),
		minimum("MailboxBytes", &c.MailboxBytes, 1<<20, 1),
		{check: c.RateLimit.validate},
		{check: c.Admission.validate},
		minimum("ControlFrameLimit", &c.ControlFrameLimit, 10_000, 0),
		{check: c.Compression.validate},
	}
}

// number is the type of a numeric setting.
type number interface{ ~int | ~int64 }

// initially is a setting with a default.
func initially[T any](field *T, value T) setting {
	return setting{reset: func() { *field = value }}
}

// minimum is a setting of at least least.
func minimum[N number](name string, field *N, value, least N) setting {
	s := initially(field, value)
	s.check = func() error { return atLeast(name, *field, least) }
	return s
}

// within is a setting from least to most.
func within[N number](name string, field *N, value, least, most N) setting {
	s := initially(field, value)
	s.check = func() error { return between(name, *field, least, most) }
	return s
}

// rule is a condition that must hold.
func rule(name, text string, holds func() bool) setting {
	return setting{check: func() error { return invalidIf(!holds(), name, text) }}
}

// DefaultConfig returns the defaults.
func DefaultConfig() (c Config) {
	for _, s := range c.settings() {
		if s.reset != nil {
			s.reset()
		}
	}
	return c
}

// Validate returns an error that wraps ErrInvalidConfig and names the field, if
// a setting is out of range.
func (c *Config) Validate() error {
	for _, s := range c.settings() {
		if s.check == nil {
			continue
		}
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
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
