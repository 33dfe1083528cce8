package ws

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
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
//  3. for an option of the event loops, its field in engine.Config: the same name, without
//     the dot of a nested one,
//
// and run go generate, which writes its With function and the line that copies it to the
// engine. An option that sets several fields, or needs more words, is written in options.go.
func (c *Config) settings() []setting {
	return slices.Concat(c.connectionSettings(), c.handshakeSettings(), c.roomSettings(), c.serverSettings(),
		c.Idempotency.settings())
}

// connectionSettings are the settings of open connections and their queues.
func (c *Config) connectionSettings() []setting {
	return []setting{
		minimum("MaxConnections", &c.MaxConnections, 10_000, 1),
		minimum("HeartbeatInterval", &c.HeartbeatInterval, 30*time.Second, time.Millisecond),
		minimum("HeartbeatTimeout", &c.HeartbeatTimeout, 90*time.Second, time.Millisecond),
		rule("HeartbeatTimeout", "must exceed HeartbeatInterval",
			func() bool { return c.HeartbeatTimeout > c.HeartbeatInterval }),
		minimum("MaxLifetime", &c.MaxLifetime, 0, 0),
		minimum("MaxLifetimeJitter", &c.MaxLifetimeJitter, 0, 0),
		rule("MaxLifetimeJitter", "must be at most MaxLifetime",
			func() bool { return c.MaxLifetimeJitter <= c.MaxLifetime }),
		minimum("MessageSizeLimit", &c.MessageSizeLimit, 512<<10, 1),
		within("MessageQueueSize", &c.MessageQueueSize, 256, 1, 1<<20),
		within("QueueBytes", &c.QueueBytes, 1<<20, 1, 1<<38),
		within("HighQueueSize", &c.HighQueueSize, 64, 1, 1<<20),
		within("HighQueueBytes", &c.HighQueueBytes, 256<<10, 1, 1<<38),
		minimum("QueueBudget", &c.QueueBudget, 0, 0),
		minimum("HistoryBudget", &c.HistoryBudget, 1<<30, 0),
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
		{check: func() error { _, err := c.Inbox.config(); return err }},
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
		{check: c.validateProxies},
		initially(&c.Paths, []string{"/ws"}),
		initially(&c.LivePath, "/healthz"),
		initially(&c.ReadyPath, "/readyz"),
		{check: c.validatePaths},
		within("Loops", &c.Loops, 0, 0, maxLoops),
		within("RoomShards", &c.RoomShards, 0, 0, 1<<20),
		rule("RoomShards", "must be a power of two", func() bool { return c.RoomShards&(c.RoomShards-1) == 0 }),
		rule("BatchedWrites", "must be Auto or Off", func() bool { return c.BatchedWrites <= Off }),
		rule("HandlerMode", "must be Pooled or Inline", func() bool { return c.HandlerMode <= Inline }),
		minimum("Workers", &c.Workers, 0, 0),
		minimum("MailboxSize", &c.MailboxSize, 64, 1),
		minimum("MailboxBytes", &c.MailboxBytes, 1<<20, 1),
		{check: c.RateLimit.validate},
		{check: c.Admission.validate},
		{check: c.validateCluster},
		minimum("ControlFrameLimit", &c.ControlFrameLimit, 10_000, 0),
		minimum("LoopStallThreshold", &c.LoopStallThreshold, 100*time.Millisecond, 0),
		rule("LoopStallThreshold", "must be 0 or at least 10 ms",
			func() bool { return c.LoopStallThreshold == 0 || c.LoopStallThreshold >= 10*time.Millisecond }),
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
		cfg.Loops = min(engine.Processors(), maxLoops)
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
		cfg.Workers = 256 * engine.Processors()
	}
	if cfg.ListenAddr != "" && !strings.Contains(cfg.ListenAddr, "://") {
		cfg.ListenAddr = "tcp://" + cfg.ListenAddr
	}
	cfg.Compression = cfg.Compression.withDefaults()
	cfg.Admission = cfg.Admission.withDefaults()
	cfg.Cluster = cfg.Cluster.withDefaults()
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
	cfg.TrustedProxies = slices.Clone(c.TrustedProxies)
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

func (c *Config) validateOrigins() error {
	ways := 0
	for _, set := range []bool{c.OriginWhitelist != nil, c.CheckOrigin != nil, c.AllowAllOrigins} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return invalid("OriginWhitelist", "excludes CheckOrigin and AllowAllOrigins, and they each other")
	}
	if c.OriginWhitelist != nil && len(c.OriginWhitelist) == 0 {
		return invalid("OriginWhitelist", "is empty and would refuse everybody")
	}
	for _, origin := range c.OriginWhitelist {
		if isWildcard(origin) {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			return invalid("OriginWhitelist", fmt.Sprintf("%q is not an origin such as https://example.com", origin))
		}
	}
	return nil
}

// isWildcard reports whether an entry of OriginWhitelist is a pattern.
func isWildcard(entry string) bool { return strings.Contains(entry, "*") }

// warnOfWildcards logs the entries of OriginWhitelist that match nothing.
func (c *Config) warnOfWildcards() {
	var wildcards []string
	for _, entry := range c.OriginWhitelist {
		if isWildcard(entry) {
			wildcards = append(wildcards, entry)
		}
	}
	if wildcards != nil {
		c.Logger.Warn("ws: entries of OriginWhitelist with a wildcard match no origin: list each, or use WithCheckOrigin",
			slog.Any("entries", wildcards))
	}
}

// maxSubprotocols is the largest value of Client.subprotocol.
const maxSubprotocols = 255

func (c *Config) validateSubprotocols() error {
	if len(c.Subprotocols) > maxSubprotocols {
		return invalid("Subprotocols",
			fmt.Sprintf("has %d names, must have at most %d", len(c.Subprotocols), maxSubprotocols))
	}
	seen := make(map[string]bool, len(c.Subprotocols))
	for _, name := range c.Subprotocols {
		if !codec.IsToken(name) {
			return invalid("Subprotocols", fmt.Sprintf("%q is no token (RFC 6455 section 4.1)", name))
		}
		if seen[name] {
			return invalid("Subprotocols", fmt.Sprintf("has %q twice", name))
		}
		seen[name] = true
	}
	return nil
}

func (c *Config) validateListenAddr() error {
	if c.ListenAddr == "" {
		return nil
	}
	scheme, rest, ok := strings.Cut(c.ListenAddr, "://")
	if !ok {
		scheme, rest = "tcp", c.ListenAddr
	}
	_, port, err := net.SplitHostPort(rest)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	switch {
	case scheme != "unix" && err != nil, rest == "":
		return invalid("ListenAddr", fmt.Sprintf("%q is not of the form tcp://host:port", c.ListenAddr))
	case scheme != "tcp" && scheme != "tcp4" && scheme != "tcp6" && scheme != "unix":
		return invalid("ListenAddr", fmt.Sprintf("scheme %q is not tcp, tcp4, tcp6 or unix", scheme))
	case scheme == "unix" && rest[0] == '@' && runtime.GOOS != "linux":
		return invalid("ListenAddr", fmt.Sprintf("%q is an abstract socket, which Linux alone has", c.ListenAddr))
	}
	return nil
}

// validateTLS refuses a TLSConfig with which every handshake would fail.
func (c *Config) validateTLS() error {
	t := c.TLSConfig
	switch {
	case t == nil:
		return nil
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return invalid("TLSConfig", "needs Certificates, GetCertificate or GetConfigForClient")
	}
	return nil
}

// validatePaths refuses paths of ListenAddr that are malformed or have two meanings.
func (c *Config) validatePaths() error {
	if len(c.Paths) == 0 {
		return invalid("Paths", "is empty")
	}
	for _, path := range c.Paths {
		switch {
		case !strings.HasPrefix(path, "/"):
			return invalid("Paths", "must begin with a slash")
		case path == c.LivePath || path == c.ReadyPath:
			return invalid("Paths", "has a path of health checks")
		}
	}
	return firstError(
		invalidIf(c.LivePath != "" && c.LivePath[0] != '/', "LivePath", "must begin with a slash"),
		invalidIf(c.ReadyPath != "" && c.ReadyPath[0] != '/', "ReadyPath", "must begin with a slash"),
		invalidIf(c.ReadyPath != "" && c.ReadyPath == c.LivePath, "ReadyPath", "is LivePath as well"),
	)
}

// validatePolicy refuses unknown policies; 0 is valid.
func validatePolicy(field string, p OverflowPolicy) error {
	return invalidIf(p > Disconnect, field, "must be DropNewest, DropOldest or Disconnect")
}

func invalid(field, why string) error {
	return fmt.Errorf("%w: %s %s", ErrInvalidConfig, field, why)
}

func invalidIf(bad bool, field, why string) error {
	if bad {
		return invalid(field, why)
	}
	return nil
}

func atLeast[N number](field string, value, least N) error {
	return invalidIf(value < least, field, fmt.Sprintf("is %v, must be at least %v", value, least))
}

func between[N number](field string, value, least, most N) error {
	return invalidIf(value < least || value > most, field,
		fmt.Sprintf("is %v, must be between %v and %v", value, least, most))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
