package codec_test

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	inetBlock      = "\xC0\x00\x02\x01\xC6\x33\x64\x01\xDC\x04\x01\xBB"
	inet6Block     = "\x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\xDC\x04\x01\xBB"
)

// proxyV2 returns a header of version 2.
func proxyV2(command, family byte, rest string) string {
	length := binary.BigEndian.AppendUint16(nil, uint16(len(rest)))
	return proxySignature + string([]byte{command, family}) + string(length) + rest
}

// tlv returns an additional field.
func tlv(kind byte, value string) string {
	return string([]byte{kind}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(value)))) + value
}

// withChecksum returns a header with one more field, its CRC-32C.
func withChecksum(command, family byte, rest string) string {
	header := []byte(proxyV2(command, family, rest+tlv(3, "\x00\x00\x00\x00")))
	sum := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(header[len(header)-4:], sum)
	return string(header)
}

// chopProxyHeader parses longer and longer prefixes of b, like a loop whose buffer fills, and
// returns the first decision.
func chopProxyHeader(b []byte) (netip.AddrPort, int, error) {
	for at := range len(b) + 1 {
		if addr, n, err := codec.ParseProxyHeader(b[:at]); n > 0 || err != nil {
			return addr, n, err
		}
	}
	return netip.AddrPort{}, 0, nil
}

func TestParseProxyHeader(t *testing.T) {
	longest := "PROXY UNKNOWN " + strings.Repeat("f", 107-len("PROXY UNKNOWN \r\n")) + "\r\n"
	for name, test := range map[string]struct{ header, client string }{
		"v1 TCP4":               {"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1:56324"},
		"v1 TCP6":               {"PROXY TCP6 2001:db8::7 2001:db8::8 56324 443\r\n", "[2001:db8::7]:56324"},
		"v1 mapped":             {"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 1 2\r\n", "192.0.2.1:1"},
		"v1 port 0":             {"PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n", "192.0.2.1:0"},
		"v1 unspecified":        {"PROXY TCP4 0.0.0.0 198.51.100.1 0 80\r\n", ""},
		"v1 UNKNOWN":            {"PROXY UNKNOWN\r\n", ""},
		"v1 UNKNOWN, longest":   {longest, ""},
		"v2 TCP over IPv4":      {proxyV2(0x21, 0x11, inetBlock), "192.0.2.1:56324"},
		"v2 UDP over IPv4":      {proxyV2(0x21, 0x12, inetBlock), "192.0.2.1:56324"},
		"v2 TCP over IPv6":      {proxyV2(0x21, 0x21, inet6Block), "[2001:db8::7]:56324"},
		"v2 Unix":               {proxyV2(0x21, 0x31, strings.Repeat("\x00", 216)), ""},
		"v2 UNSPEC":             {proxyV2(0x21, 0, ""), ""},
		"v2 UNSPEC with bytes":  {proxyV2(0x21, 0, "anything"), ""},
		"v2 LOCAL":              {proxyV2(0x20, 0, ""), ""},
		"v2 LOCAL, any address": {proxyV2(0x20, 0x11, inetBlock), ""},
		"v2 LOCAL, any bytes":   {proxyV2(0x20, 0xFF, "anything"), ""},
		"v2 zeros":              {proxyV2(0x21, 0x11, strings.Repeat("\x00", 12)), ""},
		"v2 TLVs":               {proxyV2(0x21, 0x11, inetBlock+tlv(4, "")+tlv(0xE0, "own")), "192.0.2.1:56324"},
		"v2 checksum":           {withChecksum(0x21, 0x11, inetBlock+tlv(1, "h2")), "192.0.2.1:56324"},
		"v2 checksum of Unix":   {withChecksum(0x21, 0x31, strings.Repeat("/", 216)), ""},
		"v2 longest": {
			proxyV2(0x21, 0x11, inetBlock+tlv(4, strings.Repeat("x", 4096-16-12-3))), "192.0.2.1:56324",
		},
	} {
		t.Run(name, func(t *testing.T) {
			stream := []byte(test.header + "GET / HTTP/1.1\r\n")
			addr, n, err := codec.ParseProxyHeader(stream)
			require.NoError(t, err)
			assert.Equal(t, len(test.header), n)
			var got string
			if addr.IsValid() {
				got = addr.String()
			}
			assert.Equal(t, test.client, got)

			chopped, n, err := chopProxyHeader(stream)
			require.NoError(t, err)
			assert.Equal(t, len(test.header), n)
			assert.Equal(t, addr, chopped)
		})
	}
}

func TestParseProxyHeaderRefuses(t *testing.T) {
	badSum := []byte(withChecksum(0x21, 0x11, inetBlock))
	badSum[len(badSum)-1]++
	spoiled := []byte(withChecksum(0x21, 0x11, inetBlock))
	spoiled[16]++ // the client's address
	for name, header := range map[string]string{
		"a request":                 "GET / HTTP/1.1\r\n\r\n",
		"another method with P":     "POST / HTTP/1.1\r\n",
		"a blank line":              "\r\nGET / HTTP/1.1\r\n",
		"a ClientHello":             "\x16\x03\x01\x02\x00\x01",
		"v1 lower case":             "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
		"v1 no CR":                  "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
		"v1 empty":                  "PROXY \r\n",
		"v1 another family":         "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
		"v1 UNKNOWN as a prefix":    "PROXY UNKNOWNS\r\n",
		"v1 no ports":               "PROXY TCP4 192.0.2.1 198.51.100.1\r\n",
		"v1 one port":               "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
		"v1 three ports":            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
		"v1 two spaces":             "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
		"v1 trailing space":         "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
		"v1 port too large":         "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n",
		"v1 port with a zero":       "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
		"v1 port with a sign":       "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
		"v1 IPv6 as TCP4":           "PROXY TCP4 2001:db8::7 2001:db8::8 1 2\r\n",
		"v1 IPv4 as TCP6":           "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
		"v1 zone":                   "PROXY TCP6 fe80::1%lo fe80::2 1 2\r\n",
		"v1 host name":              "PROXY TCP4 localhost 198.51.100.1 1 2\r\n",
		"v1 bad target":             "PROXY TCP4 192.0.2.1 198.51.100.256 1 2\r\n",
		"v1 too long":               "PROXY UNKNOWN " + strings.Repeat("f", 200),
		"v1 one byte too long":      "PROXY UNKNOWN " + strings.Repeat("f", 108-len("PROXY UNKNOWN \r\n")) + "\r\n",
		"v2 version 1":              proxyV2(0x11, 0x11, inetBlock),
		"v2 version 3":              proxyV2(0x31, 0x11, inetBlock),
		"v2 another command":        proxyV2(0x22, 0x11, inetBlock),
		"v2 another family":         proxyV2(0x21, 0x41, inetBlock),
		"v2 no transport":           proxyV2(0x21, 0x10, inetBlock),
		"v2 another transport":      proxyV2(0x21, 0x13, inetBlock),
		"v2 transport of no family": proxyV2(0x21, 0x01, inetBlock),
		"v2 IPv4 cut off":           proxyV2(0x21, 0x11, inetBlock[:11]),
		"v2 IPv6 cut off":           proxyV2(0x21, 0x21, inetBlock),
		"v2 Unix cut off":           proxyV2(0x21, 0x31, strings.Repeat("x", 215)),
		"v2 TLV without length":     proxyV2(0x21, 0x11, inetBlock+"\x04\x00"),
		"v2 TLV beyond the end":     proxyV2(0x21, 0x11, inetBlock+"\x04\x00\x05abcd"),
		"v2 checksum of 3 bytes":    proxyV2(0x21, 0x11, inetBlock+tlv(3, "abc")),
		"v2 wrong checksum":         string(badSum),
		"v2 spoiled address":        string(spoiled),
		"v2 two checksums":          withChecksum(0x21, 0x11, inetBlock+tlv(3, "\x00\x00\x00\x00")),
		"v2 too long":               proxyV2(0x21, 0x11, inetBlock+tlv(4, strings.Repeat("x", 4097-16-12-3))),
		"v2 LOCAL too long":         proxyV2(0x20, 0, strings.Repeat("x", 65535)),
	} {
		t.Run(name, func(t *testing.T) {
			addr, n, err := codec.ParseProxyHeader([]byte(header))
			require.Error(t, err)
			assert.Zero(t, n)
			assert.False(t, addr.IsValid())
			_, _, chopped := chopProxyHeader([]byte(header))
			assert.Equal(t, err, chopped)
		})
	}
}

// An incomplete header of version 2 is refused early if it announces too many bytes.
func TestParseProxyHeaderWaits(t *testing.T) {
	for _, header := range []string{
		"", "P", "PROXY TCP4 1", "\r\n\r\n", proxySignature, proxyV2(0x21, 0x11, inetBlock)[:27],
	} {
		_, n, err := codec.ParseProxyHeader([]byte(header))
		require.NoError(t, err)
		assert.Zero(t, n)
	}
	_, _, err := codec.ParseProxyHeader([]byte(proxySignature + "\x21\x11\xFF\xFF"))
	require.Error(t, err)
}

func TestParseProxyHeaderAllocatesNothing(t *testing.T) {
	header := []byte(withChecksum(0x21, 0x11, inetBlock))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _, _ = codec.ParseProxyHeader(header) }))
}

func FuzzParseProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET"), []byte("more"))
	f.Add([]byte("PROXY UNKNOWN\r\n"), []byte(""))
	f.Add([]byte(withChecksum(0x21, 0x21, inet6Block+tlv(4, "x"))), []byte("GET"))
	f.Add([]byte(proxyV2(0x20, 0, "")), []byte("\x00"))
	f.Fuzz(func(t *testing.T, header, more []byte) {
		addr, n, err := codec.ParseProxyHeader(header)
		require.LessOrEqual(t, n, min(len(header), 4096))
		if n == 0 {
			require.False(t, addr.IsValid())
		}
		if addr.IsValid() {
			require.False(t, addr.Addr().Is4In6())
			require.Empty(t, addr.Addr().Zone())
		}
		if n > 0 || err != nil { // more bytes change nothing
			again, m, late := codec.ParseProxyHeader(append(slices.Clip(header), more...))
			require.Equal(t, addr, again)
			require.Equal(t, n, m)
			require.Equal(t, err, late)
		}
		chopped, m, early := chopProxyHeader(header)
		require.Equal(t, addr, chopped)
		require.Equal(t, n, m)
		require.Equal(t, err, early)
	})
}
