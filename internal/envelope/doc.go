// Package envelope reads and writes the JSON envelopes of messages. It scans requests and
// notifications, and encodes replies, without reflection.
package envelope
