package ws

import (
	"strconv"
	"time"
)

// retryReason returns the reason of a close frame that asks the client to connect again after d:
// {"retry_ms":1840}. It is far shorter than the 123 bytes of a reason (RFC 6455 section 5.5).
func retryReason(d time.Duration) string {
	return `{"retry_ms":` + strconv.FormatInt(max(0, d.Milliseconds()), 10) + `}`
}
