package ws

import "github.com/qi-realtime/ws/codec"

// CompressionConfig configures permessage-deflate (RFC 7692).
type CompressionConfig struct {
	// Level is 1, the fastest and the default (also 0), to 9, the smallest. It
	// applies to windows of 15 bits; smaller ones have one level.
	Level int
	// Threshold is the size in bytes from which on a message to a client is
	// compressed. 0, the default, is 512; 1 compresses all. Without context takeover
	// a message that would not become shorter is sent as it is.
	Threshold int
	// ContextTakeover lets a message refer to the ones before it, which makes
	// similar small messages much shorter. It costs up to one window for each
	// direction of a connection, and a broadcast is then compressed for each
	// member anew. Default off: a connection holds nothing, and a broadcast is
	// compressed once for each window size that its members have negotiated.
	ContextTakeover bool
	// WindowBits bounds the window of both directions: 2^WindowBits bytes, 8 to
	// 15. 0, the default, is 15. A client may ask for a smaller one.
	WindowBits int
	// MaxRatio bounds the ratio of a message's length to its compressed length: a message
	// from a client that inflates to more than 64 KiB and to more than MaxRatio times its
	// compressed bytes closes the client with 1009. 0, the default, is 100; negative is
	// no bound. DEFLATE reaches 1032.
	MaxRatio int
}

// defaultMaxRatio is the default of CompressionConfig.MaxRatio.
const defaultMaxRatio = 100

// validate checks the ranges; zeros stand for the defaults.
func (c *CompressionConfig) validate() error {
	return firstError(
		between("Compression.Level", c.Level, 0, 9),
		atLeast("Compression.Threshold", c.Threshold, 0),
		invalidIf(c.WindowBits != 0 && (c.WindowBits < codec.MinWindowBits || c.WindowBits > codec.MaxWindowBits),
			"Compression.WindowBits", "must be between 8 and 15"),
	)
}

// withDefaults replaces each zero by its default.
func (c CompressionConfig) withDefaults() CompressionConfig {
	if c.Level == 0 {
		c.Level = 1
	}
	if c.Threshold == 0 {
		c.Threshold = 512
	}
	if c.WindowBits == 0 {
		c.WindowBits = codec.MaxWindowBits
	}
	if c.MaxRatio == 0 {
		c.MaxRatio = defaultMaxRatio
	}
	return c
}

// options returns the settings that the handshake needs.
func (c *CompressionConfig) options() codec.DeflateOptions {
	return codec.DeflateOptions{Takeover: c.ContextTakeover, WindowBits: uint8(c.WindowBits)}
}
