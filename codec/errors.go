package codec

import "errors"

// The violations of a client on an open connection. Next and ParseClose return these values
// themselves, never wrapped. [CloseCodeOf] returns the close code of the answer.
var (
	// ErrReservedBits means that RSV1, RSV2 or RSV3 was set (RFC 6455 section 5.2).
	ErrReservedBits = errors.New("codec: reserved bits set")
	// ErrReservedOpcode means an opcode without a meaning (section 5.2).
	ErrReservedOpcode = errors.New("codec: reserved opcode")
	// ErrUnmasked means that a client frame came without a mask (section 5.1).
	ErrUnmasked = errors.New("codec: frame from client is not masked")
	// ErrMasked means that a server frame came with a mask (section 5.1).
	ErrMasked = errors.New("codec: frame from server is masked")
	// ErrFragmentedControl means a control frame with FIN clear (section 5.5).
	ErrFragmentedControl = errors.New("codec: fragmented control frame")
	// ErrControlTooLong means a control frame of more than 125 payload bytes (section 5.5).
	ErrControlTooLong = errors.New("codec: control frame payload too long")
	// ErrUnexpectedContinuation means a continuation frame outside a message (section 5.4).
	ErrUnexpectedContinuation = errors.New("codec: unexpected continuation frame")
	// ErrExpectedContinuation means a new data message inside another (section 5.4).
	ErrExpectedContinuation = errors.New("codec: expected continuation frame")
	// ErrLengthNotMinimal means a payload length that took more bytes than it needs
	// (section 5.2).
	ErrLengthNotMinimal = errors.New("codec: payload length not minimally encoded")
	// ErrLengthOverflow means a 64-bit payload length with its top bit set (section 5.2).
	ErrLengthOverflow = errors.New("codec: payload length has its top bit set")
	// ErrMessageTooLarge means a message that would exceed the limit given to Next.
	ErrMessageTooLarge = errors.New("codec: message too large")
	// ErrInvalidUTF8 means text or a close reason that is not UTF-8 (section 8.1).
	ErrInvalidUTF8 = errors.New("codec: invalid UTF-8")
	// ErrEmptyFragments means a message with more than 1,000 empty fragments, which are legal but
	// useless (section 5.4).
	ErrEmptyFragments = errors.New("codec: too many empty fragments")
	// ErrInvalidDeflate means a compressed message that cannot be inflated (RFC 7692 section
	// 7.2.2).
	ErrInvalidDeflate = errors.New("codec: invalid compressed data")
	// ErrClosePayload means a close payload of one byte (section 5.5.1).
	ErrClosePayload = errors.New("codec: close payload of one byte")
	// ErrCloseCode means a close code that must not appear on the wire (section 7.4).
	ErrCloseCode = errors.New("codec: invalid close code")
)

// closeCodes maps errors to close codes. It is never changed.
var closeCodes = [...]struct {
	err  error
	code CloseCode
}{
	{ErrReservedBits, CloseProtocolError},
	{ErrReservedOpcode, CloseProtocolError},
	{ErrUnmasked, CloseProtocolError},
	{ErrMasked, CloseProtocolError},
	{ErrFragmentedControl, CloseProtocolError},
	{ErrControlTooLong, CloseProtocolError},
	{ErrUnexpectedContinuation, CloseProtocolError},
	{ErrExpectedContinuation, CloseProtocolError},
	{ErrLengthNotMinimal, CloseProtocolError},
	{ErrLengthOverflow, CloseProtocolError},
	{ErrClosePayload, CloseProtocolError},
	{ErrCloseCode, CloseProtocolError},
	{ErrInvalidUTF8, CloseInvalidPayload},
	{ErrInvalidDeflate, CloseInvalidPayload},
	{ErrMessageTooLarge, CloseMessageTooBig},
	{ErrEmptyFragments, ClosePolicyViolation},
}

// CloseCodeOf returns the close code for err: 1002, 1007, 1008 or 1009 for the errors of this
// package, wrapped or not, and 1011 for any other, nil included. Safe for concurrent use.
func CloseCodeOf(err error) CloseCode {
	for i := range closeCodes {
		if errors.Is(err, closeCodes[i].err) {
			return closeCodes[i].code
		}
	}
	return CloseInternalError
}
