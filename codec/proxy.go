package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// The reasons why the bytes of a connection begin with no header of the PROXY protocol.
var (
	errNoProxyHeader  = errors.New("codec: PROXY protocol: no header")
	errProxyLine      = errors.New("codec: PROXY protocol: malformed line")
	errProxyLineBytes = errors.New("codec: PROXY protocol: line too long")
	errProxyVersion   = errors.New("codec: PROXY protocol: unknown version or command")
	errProxyFamily    = errors.New("codec: PROXY protocol: unknown address family or transport")
	errProxyBytes     = errors.New("codec: PROXY protocol: header too long")
	errProxyAddresses = errors.New("codec: PROXY protocol: addresses cut off")
	errProxyTLV       = errors.New("codec: PROXY protocol: malformed TLV")
	errProxyChecksum  = errors.New("codec: PROXY protocol: wrong checksum")
)

const (
	proxyV1Prefix    = "PROXY "
	proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"

	// maxProxyLine is the longest header of version 1, with its CRLF.
	maxProxyLine = 107
	// maxProxyBytes bounds a header of version 2. The protocol allows 64 KiB; HAProxy and the
	// load balancers of clouds send less than 1 KiB.
	maxProxyBytes = 4 << 10
	// proxyV2Fixed is the size of the part of version 2 that every header has.
	proxyV2Fixed = 16
)

// ParseProxyHeader parses the header of the PROXY protocol, version 1 or 2, at the start of b
// (proxy-protocol.txt of HAProxy). It returns the address of the client and the size of the
// header. The address is invalid if the proxy has named no client: for its own health checks
// (LOCAL), for UNKNOWN and UNSPEC, and for a client over a Unix socket. ParseProxyHeader returns
// 0 until the header is whole, and an error at the first wrong byte of its beginning, or when a
// malformed one is whole. Once it has decided, more bytes change nothing.
//
// Of the additional fields of version 2 (TLVs) the checksum is verified; others are skipped.
// b is borrowed. Version 2 takes no allocation. Safe for concurrent use.
func ParseProxyHeader(b []byte) (client netip.AddrPort, n int, err error) {
	switch {
	case beginsLike(b, proxyV1Prefix):
		return parseProxyV1(b)
	case beginsLike(b, proxyV2Signature):
		return parseProxyV2(b)
	}
	return client, 0, errNoProxyHeader
}

// beginsLike reports whether b begins with prefix, as far as b goes.
func beginsLike(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

// parseProxyV1 parses a line such as "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443".
func parseProxyV1(b []byte) (client netip.AddrPort, n int, err error) {
	head := b[:min(len(b), maxProxyLine)]
	end := bytes.IndexByte(head, '\n')
	switch {
	case end < 0 && len(head) == maxProxyLine:
		return client, 0, errProxyLineBytes
	case end < 0:
		return client, 0, nil
	case head[end-1] != '\r':
		return client, 0, errProxyLine
	}
	line := string(head[len(proxyV1Prefix) : end-1])
	if line == "UNKNOWN" || strings.HasPrefix(line, "UNKNOWN ") {
		return client, end + 1, nil
	}
	client, ok := parseProxyAddresses(line)
	if !ok {
		return netip.AddrPort{}, 0, errProxyLine
	}
	return client, end + 1, nil
}

// parseProxyAddresses parses the family, the two addresses and the two ports of version 1, each
// behind one space, and returns the first address.
func parseProxyAddresses(line string) (client netip.AddrPort, ok bool) {
	family, line, _ := strings.Cut(line, " ")
	source, line, _ := strings.Cut(line, " ")
	target, line, _ := strings.Cut(line, " ")
	sourcePort, targetPort, _ := strings.Cut(line, " ")
	if family != "TCP4" && family != "TCP6" {
		return client, false
	}
	from, ok := parseProxyIP(source, family == "TCP6")
	if _, valid := parseProxyIP(target, family == "TCP6"); !ok || !valid {
		return client, false
	}
	port, ok := parseProxyPort(sourcePort)
	if _, valid := parseProxyPort(targetPort); !ok || !valid {
		return client, false
	}
	return proxyClient(from, port), true
}

func parseProxyIP(s string, is6 bool) (netip.Addr, bool) {
	if len(s) > maxIPText {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(s)
	return ip, err == nil && ip.Is6() == is6 && ip.Zone() == ""
}

// parseProxyPort parses a decimal number without leading zeros.
func parseProxyPort(s string) (uint16, bool) {
	if len(s) > 1 && s[0] == '0' || !all(s, isDigit) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

// proxyClient returns the address of a client, invalid for an unspecified one.
func proxyClient(ip netip.Addr, port uint16) netip.AddrPort {
	if ip = ip.Unmap(); ip.IsUnspecified() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, port)
}

// The commands and address families of version 2.
const (
	proxyV2Local = 0x20
	proxyV2Proxy = 0x21
	proxyInet    = 1
	proxyInet6   = 2
	proxyUnix    = 3
)

// parseProxyV2 parses a binary header.
func parseProxyV2(b []byte) (client netip.AddrPort, n int, err error) {
	if len(b) < proxyV2Fixed {
		return client, 0, nil
	}
	command, family := b[12], b[13]>>4
	n = proxyV2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case command != proxyV2Local && command != proxyV2Proxy:
		return client, 0, errProxyVersion
	case n > maxProxyBytes:
		return client, 0, errProxyBytes
	case command == proxyV2Proxy && !knownProxyFamily(b[13]):
		return client, 0, errProxyFamily
	case len(b) < n:
		return client, 0, nil
	case command == proxyV2Local || family == 0:
		return client, n, nil // the rest has no meaning
	}
	header := b[:n]
	size := [...]int{proxyInet: 2*4 + 4, proxyInet6: 2*16 + 4, proxyUnix: 2 * 108}[family]
	if len(header) < proxyV2Fixed+size {
		return client, 0, errProxyAddresses
	}
	if err := checkProxyTLVs(header, proxyV2Fixed+size); err != nil {
		return client, 0, err
	}
	switch block := header[proxyV2Fixed:]; family {
	case proxyInet:
		client = proxyClient(netip.AddrFrom4([4]byte(block)), binary.BigEndian.Uint16(block[8:]))
	case proxyInet6:
		client = proxyClient(netip.AddrFrom16([16]byte(block)), binary.BigEndian.Uint16(block[32:]))
	}
	return client, n, nil
}

// knownProxyFamily reports whether b is an address family with a transport, a stream or
// datagrams, or neither (UNSPEC).
func knownProxyFamily(b byte) bool {
	family, transport := b>>4, b&0xF
	return b == 0 || family >= proxyInet && family <= proxyUnix && (transport == 1 || transport == 2)
}

const (
	proxyTLVHeader   = 3
	proxyTLVChecksum = 0x03 // PP2_TYPE_CRC32C
)

// castagnoli is the polynomial of the checksum, and zeroChecksum stands in its place when it is
// computed. Both are immutable.
var (
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
	zeroChecksum [crc32.Size]byte
)

// checkProxyTLVs checks the additional fields of header, which begin at index at.
func checkProxyTLVs(header []byte, at int) error {
	for at < len(header) {
		if len(header)-at < proxyTLVHeader {
			return errProxyTLV
		}
		kind, value := header[at], at+proxyTLVHeader
		at = value + int(binary.BigEndian.Uint16(header[at+1:]))
		if at > len(header) {
			return errProxyTLV
		}
		if kind != proxyTLVChecksum {
			continue
		}
		if at-value != crc32.Size {
			return errProxyTLV
		}
		if binary.BigEndian.Uint32(header[value:]) != proxyChecksum(header, value) {
			return errProxyChecksum
		}
	}
	return nil
}

// proxyChecksum returns the checksum of header with zeros in place of the checksum at index at.
func proxyChecksum(header []byte, at int) uint32 {
	sum := crc32.Update(0, castagnoli, header[:at])
	sum = crc32.Update(sum, castagnoli, zeroChecksum[:])
	return crc32.Update(sum, castagnoli, header[at+crc32.Size:])
}
