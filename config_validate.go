package ws

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Validate returns an error that wraps ErrInvalidConfig and names the field, if
// a setting is out of range.
func (c *Config) Validate() error {
	return firstError(
		atLeast("MaxConnections", c.MaxConnections, 1),
		atLeast("HeartbeatInterval", c.HeartbeatInterval, time.Millisecond),
		atLeast("HeartbeatTimeout", c.HeartbeatTimeout, time.Millisecond),
		invalidIf(c.HeartbeatTimeout <= c.HeartbeatInterval, "HeartbeatTimeout", "must exceed HeartbeatInterval"),
		atLeast("MessageSizeLimit", c.MessageSizeLimit, 1),
		between("MessageQueueSize", c.MessageQueueSize, 1, 1<<20),
		between("QueueBytes", c.QueueBytes, 1, 1<<38),
		between("HighQueueSize", c.HighQueueSize, 1, 1<<20),
		between("HighQueueBytes", c.HighQueueBytes, 1, 1<<38),
		atLeast("QueueBudget", c.QueueBudget, 0),
		validatePolicy("OverflowPolicy", c.OverflowPolicy),
		invalidIf(!(c.HighWaterMark > 0 && c.HighWaterMark <= 1), "HighWaterMark", "must be above 0 and at most 1"),
		invalidIf(!(c.LowWaterMark > 0 && c.LowWaterMark < c.HighWaterMark), "LowWaterMark",
			"must be above 0 and below HighWaterMark"),
		atLeast("HighWaterAge", c.HighWaterAge, 0),
		between("UnsentBytes", c.UnsentBytes, 0, 1<<30),
		between("RecvBuffer", c.RecvBuffer, 0, 1<<30),
		between("SendBuffer", c.SendBuffer, 0, 1<<30),
		atLeast("InboundBudget", c.InboundBudget, 0),
		atLeast("MessageTimeout", c.MessageTimeout, 0),
		atLeast("WriteTimeout", c.WriteTimeout, 0),
		between("HeadBytes", c.HeadBytes, 1<<10, 256<<10),
		between("HeadLines", c.HeadLines, 16, 1024),
		atLeast("HandshakeTimeout", c.HandshakeTimeout, time.Millisecond),
		atLeast("CloseTimeout", c.CloseTimeout, time.Millisecond),
		invalidIf(c.DuplicateID > ReplaceOld, "DuplicateID", "must be RefuseNew or ReplaceOld"),
		c.validateOrigins(),
		c.validateSubprotocols(),
		atLeast("Room.MaxRoomSize", c.Room.MaxRoomSize, 0),
		atLeast("Room.MaxRoomsPerClient", c.Room.MaxRoomsPerClient, 0),
		atLeast("Room.MaxRoomName", c.Room.MaxRoomName, 0),
		atLeast("Room.CleanupInterval", c.Room.CleanupInterval, time.Millisecond),
		atLeast("Room.EmptyRoomTTL", c.Room.EmptyRoomTTL, 0),
		between("Broadcast.QueueSize", c.Broadcast.QueueSize, 1, 1<<20),
		between("Broadcast.BatchSize", c.Broadcast.BatchSize, 0, 4096),
		atLeast("Broadcast.Timeout", c.Broadcast.Timeout, time.Millisecond),
		c.validateListenAddr(),
		invalidIf(c.UnixSocketMode&^fs.ModePerm != 0, "UnixSocketMode", "must have permission bits only"),
		invalidIf(c.Simnet != nil && c.ListenAddr != "", "Simnet", "excludes ListenAddr"),
		c.validateTLS(),
		atLeast("TLSHandshakes", c.TLSHandshakes, 1),
		c.validatePaths(),
		between("Loops", c.Loops, 0, maxLoops),
		between("RoomShards", c.RoomShards, 0, 1<<20),
		invalidIf(c.RoomShards&(c.RoomShards-1) != 0, "RoomShards", "must be a power of two"),
		invalidIf(c.HandlerMode > Inline, "HandlerMode", "must be Pooled or Inline"),
		atLeast("Workers", c.Workers, 0),
		atLeast("MailboxSize", c.MailboxSize, 1),
		atLeast("MailboxBytes", c.MailboxBytes, 1),
		c.RateLimit.validate(),
		c.Admission.validate(),
		atLeast("ControlFrameLimit", c.ControlFrameLimit, 0),
		c.Compression.validate(),
	)
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

// isWildcard reports whether an entry of OriginWhitelist is meant as a pattern.
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

// maxSubprotocols is the largest number of a subprotocol in a Client.
const maxSubprotocols = 255

func (c *Config) validateSubprotocols() error {
	if len(c.Subprotocols) > maxSubprotocols {
		return invalid("Subprotocols", fmt.Sprintf("has %d names, must have at most %d", len(c.Subprotocols), maxSubprotocols))
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

// validateTLS refuses a setting that would fail every handshake.
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

// validatePaths checks the paths of ListenAddr.
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

// validatePolicy takes 0 as well.
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

// number is the type of a numeric setting.
type number interface{ ~int | ~int64 }

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
