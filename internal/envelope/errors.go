package envelope

import (
	"errors"
	"fmt"
)

var (
	// ErrEnvelope reports a message that is not a valid envelope. ParseEnvelope wraps it
	// with what is wrong and where.
	ErrEnvelope = errors.New("envelope: invalid envelope")

	// ErrRequestID reports an envelope beyond MaxRequestID. It wraps ErrEnvelope.
	ErrRequestID = fmt.Errorf("%w: request_id longer than %d bytes", ErrEnvelope, MaxRequestID)

	// ErrDepth reports an envelope beyond MaxDepth. It wraps ErrEnvelope.
	ErrDepth = fmt.Errorf("%w: values nest deeper than %d", ErrEnvelope, MaxDepth)
)
