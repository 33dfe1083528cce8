package codec

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// CloseCode is the status code of a close frame (RFC 6455 section 7.4). Safe for concurrent use.
type CloseCode uint16

// The close codes of RFC 6455 section 7.4.1, and 1012 to 1014 of its IANA registry.
// CloseNoStatus, CloseAbnormal and CloseTLSHandshake never appear on the wire.
const (
	CloseNormal             CloseCode = 1000
	CloseGoingAway          CloseCode = 1001
	CloseProtocolError      CloseCode = 1002
	CloseUnsupportedData    CloseCode = 1003
	CloseNoStatus           CloseCode = 1005
	CloseAbnormal           CloseCode = 1006
	CloseInvalidPayload     CloseCode = 1007
	ClosePolicyViolation    CloseCode = 1008
	CloseMessageTooBig      CloseCode = 1009
	CloseMandatoryExtension CloseCode = 1010
	CloseInternalError      CloseCode = 1011
	CloseServiceRestart     CloseCode = 1012
	CloseTryAgainLater      CloseCode = 1013
	CloseBadGateway         CloseCode = 1014
	CloseTLSHandshake       CloseCode = 1015
)

// maxCloseReason is the greatest length of a reason, in bytes. The code takes the other two.
const maxCloseReason = MaxControlPayload - 2

// Valid reports whether c may appear in a close frame: 1000 to 1003, 1007 to 1014 and 3000 to
// 4999.
func (c CloseCode) Valid() bool {
	// The check of gobwas/ws refuses 1012 to 1014 and accepts 5000 and above.
	switch {
	case c >= CloseNormal && c <= CloseUnsupportedData:
		return true
	case c >= CloseInvalidPayload && c <= CloseBadGateway:
		return true
	default:
		return c >= 3000 && c <= 4999
	}
}

// AppendClose appends a whole unmasked close frame to dst and returns the result. It cuts the
// reason to 123 bytes at a rune boundary, and replaces bytes that are not UTF-8 by U+FFFD. For
// a code that is not [CloseCode.Valid], such as CloseNoStatus, the payload is empty.
// Safe for concurrent use.
func AppendClose(dst []byte, code CloseCode, reason string) []byte {
	if !code.Valid() {
		return AppendHeader(dst, OpClose, 0)
	}
	reason = cutReason(reason)
	dst = AppendHeader(dst, OpClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// cutReason makes s valid UTF-8 and returns its longest prefix that fits a close frame.
func cutReason(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxCloseReason+utf8.UTFMax)], "\uFFFD")
	if len(s) <= maxCloseReason {
		return s
	}
	n := maxCloseReason
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ParseClose splits the payload of a close frame. The code of an empty payload is
// CloseNoStatus. ParseClose returns ErrClosePayload for a payload of one byte, ErrCloseCode for
// a code that is not [CloseCode.Valid], and ErrInvalidUTF8 for a reason that is not UTF-8. The
// payload is borrowed; the reason is a copy. Safe for concurrent use.
func ParseClose(payload []byte) (code CloseCode, reason string, err error) {
	switch len(payload) {
	case 0:
		return CloseNoStatus, "", nil
	case 1:
		return 0, "", ErrClosePayload
	}
	code = CloseCode(binary.BigEndian.Uint16(payload))
	if !code.Valid() {
		return 0, "", ErrCloseCode
	}
	if !utf8.Valid(payload[2:]) {
		return 0, "", ErrInvalidUTF8
	}
	return code, string(payload[2:]), nil
}
