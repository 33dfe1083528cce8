package ws

import (
	"math/rand/v2"
	"strconv"
	"time"
)

// retryReason returns the reason of a close frame that asks the client to connect again after d:
// {"retry_ms":1840}. It is far shorter than the 123 bytes of a reason (RFC 6455 section 5.5).
func retryReason(d time.Duration) string {
	return `{"retry_ms":` + strconv.FormatInt(max(0, d.Milliseconds()), 10) + `}`
}

// retryWithin is retryReason of a random time up to spread. The server spreads the clients,
// because a client that connects again after the same time as all others makes a storm.
func retryWithin(spread time.Duration) string {
	return retryReason(time.Duration(rand.Int64N(int64(max(0, spread)) + 1)))
}
