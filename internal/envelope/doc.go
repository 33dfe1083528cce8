// Package envelope reads and writes the JSON envelopes of messages: it scans requests and
// notifications without reflection, and encodes replies as encoding/json would.
package envelope
