package envelope

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid reports a message that is not a valid envelope. Parse wraps it with the
	// fault and its place.
	ErrInvalid = errors.New("envelope: invalid")

	// ErrRequestID reports an envelope beyond MaxRequestID. It wraps ErrInvalid.
	ErrRequestID = fmt.Errorf("%w: request_id longer than %d bytes", ErrInvalid, MaxRequestID)

	// ErrDepth reports an envelope beyond MaxDepth. It wraps ErrInvalid.
	ErrDepth = fmt.Errorf("%w: values nest deeper than %d", ErrInvalid, MaxDepth)
)
