package codec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// TestCloseCodeValid compares each of the 65536 codes with RFC 6455 section 7.4 and the IANA
// registry.
func TestCloseCodeValid(t *testing.T) {
	ranges := []struct{ from, to int }{{1000, 1003}, {1007, 1014}, {3000, 4999}}
	for c := range 1 << 16 {
		want := false
		for _, r := range ranges {
			want = want || c >= r.from && c <= r.to
		}
		require.Equal(t, want, codec.CloseCode(c).Valid(), "%d", c)
	}
}

func TestAppendClose(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	tests := []struct {
		name   string
		code   codec.CloseCode
		reason string
		want   string // payload
	}{
		{"5.5.1 code alone", codec.CloseNormal, "", "\x03\xE8"},
		{"5.5.1 code and reason", codec.CloseGoingAway, "bye", "\x03\xE9bye"},
		{"5.5.1 application code", 4999, "x", "\x13\x87x"},
		{"7.1.5 no status", codec.CloseNoStatus, "ignored", ""},
		{"7.4.1 abnormal never on the wire", codec.CloseAbnormal, "x", ""},
		{"7.4.1 TLS never on the wire", codec.CloseTLSHandshake, "x", ""},
		{"7.4.2 unused code", 999, "x", ""},
		{"5.5 reason of 123 bytes", codec.CloseNormal, a(123), "\x03\xE8" + a(123)},
		{"5.5 reason of 124 bytes", codec.CloseNormal, a(124), "\x03\xE8" + a(123)},
		{"5.5 long reason", codec.CloseNormal, a(10_000), "\x03\xE8" + a(123)},
		{"5.5 cut at a rune of two bytes", codec.CloseNormal, a(122) + "é", "\x03\xE8" + a(122)},
		{"5.5 cut in a rune of three bytes", codec.CloseNormal, a(121) + "€", "\x03\xE8" + a(121)},
		{"5.5 cut in a rune of four bytes", codec.CloseNormal, a(120) + "😀", "\x03\xE8" + a(120)},
		{"5.5 rune ends at 123", codec.CloseNormal, a(119) + "😀b", "\x03\xE8" + a(119) + "😀"},
		{"5.5.1 reason made UTF-8", codec.CloseNormal, "a\xFFb", "\x03\xE8a\uFFFDb"},
		{"5.5.1 reason made UTF-8, longer than it was", codec.CloseNormal, a(122) + "\xFF", "\x03\xE8" + a(122)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := codec.NewFrame(codec.OpClose, []byte(tt.want))
			assert.Equal(t, want, codec.AppendClose(nil, tt.code, tt.reason))
			assert.Equal(t, append([]byte("x"), want...), codec.AppendClose([]byte("x"), tt.code, tt.reason))
			_, reason, err := codec.ParseClose([]byte(tt.want))
			require.NoError(t, err, "the written frame can be read")
			assert.True(t, utf8.ValidString(reason))
		})
	}
}

func TestParseClose(t *testing.T) {
	tests := []struct {
		name    string
		payload string
		code    codec.CloseCode
		reason  string
		err     error
	}{
		{"7.1.5 empty", "", codec.CloseNoStatus, "", nil},
		{"5.5.1 one byte", "\x03", 0, "", codec.ErrClosePayload},
		{"5.5.1 code alone", "\x03\xE8", codec.CloseNormal, "", nil},
		{"5.5.1 code and reason", "\x03\xE9bye", codec.CloseGoingAway, "bye", nil},
		{"5.5.1 reason not UTF-8", "\x03\xE8\xFF", 0, "", codec.ErrInvalidUTF8},
		{"5.5.1 reason ends within a rune", "\x03\xE8\xE2\x82", 0, "", codec.ErrInvalidUTF8},
		{"7.4.1 code 1004", "\x03\xEC", 0, "", codec.ErrCloseCode},
		{"7.4.1 code 1005", "\x03\xED", 0, "", codec.ErrCloseCode},
		{"7.4.1 code 1006", "\x03\xEE", 0, "", codec.ErrCloseCode},
		{"7.4.1 code 1012", "\x03\xF4", codec.CloseServiceRestart, "", nil},
		{"7.4.1 code 1014", "\x03\xF6", codec.CloseBadGateway, "", nil},
		{"7.4.1 code 1015", "\x03\xF7", 0, "", codec.ErrCloseCode},
		{"7.4.2 code 0", "\x00\x00", 0, "", codec.ErrCloseCode},
		{"7.4.2 code 999", "\x03\xE7", 0, "", codec.ErrCloseCode},
		{"7.4.2 code 2999", "\x0B\xB7", 0, "", codec.ErrCloseCode},
		{"7.4.2 code 3000", "\x0B\xB8", 3000, "", nil},
		{"7.4.2 code 5000", "\x13\x88", 0, "", codec.ErrCloseCode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, reason, err := codec.ParseClose([]byte(tt.payload))
			assert.Equal(t, tt.err, err)
			assert.Equal(t, tt.code, code)
			assert.Equal(t, tt.reason, reason)
		})
	}
}

func TestCloseCodeOf(t *testing.T) {
	tests := []struct {
		err  error
		want codec.CloseCode
	}{
		{codec.ErrReservedBits, 1002},
		{codec.ErrReservedOpcode, 1002},
		{codec.ErrUnmasked, 1002},
		{codec.ErrFragmentedControl, 1002},
		{codec.ErrControlTooLong, 1002},
		{codec.ErrUnexpectedContinuation, 1002},
		{codec.ErrExpectedContinuation, 1002},
		{codec.ErrLengthNotMinimal, 1002},
		{codec.ErrLengthOverflow, 1002},
		{codec.ErrClosePayload, 1002},
		{codec.ErrCloseCode, 1002},
		{codec.ErrInvalidUTF8, 1007},
		{codec.ErrMessageTooLarge, 1009},
		{errors.New("another"), 1011},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			assert.Equal(t, tt.want, codec.CloseCodeOf(tt.err))
			assert.Equal(t, tt.want, codec.CloseCodeOf(fmt.Errorf("read: %w", tt.err)), "wrapped")
		})
	}
	assert.Equal(t, codec.CloseInternalError, codec.CloseCodeOf(nil))
}
