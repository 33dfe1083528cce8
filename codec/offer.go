package codec

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// Offer holds the parts of an opening handshake that the client chooses. Immutable after New.
type Offer struct {
	Host         string // the Host line
	Target       string // path and query, such as "/ws?a=b"
	Key          string // of NewKey
	Subprotocols []string
	Header       http.Header // more lines, see CheckOffer; may be nil
}

// NewKey returns a random Sec-WebSocket-Key. Safe for concurrent use.
func NewKey() string {
	var nonce [keyBytes]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return base64.StdEncoding.EncodeToString(nonce[:])
}

// CheckOffer returns an error if o cannot be sent: a malformed host or target, a subprotocol that
// is no token, or a line of Header that belongs to the handshake, that announces a body, or that
// is malformed. o is borrowed. Safe for concurrent use.
func CheckOffer(o Offer) error {
	switch {
	case o.Host == "" || !all(o.Host, isHost):
		return fmt.Errorf("codec: malformed host %q", o.Host)
	case !strings.HasPrefix(o.Target, "/") || !all(o.Target, isTarget):
		return fmt.Errorf("codec: malformed target %q", o.Target)
	}
	for _, p := range o.Subprotocols {
		if !IsToken(p) {
			return fmt.Errorf("codec: subprotocol %q is no token", p)
		}
	}
	for name := range o.Header {
		if strings.EqualFold(name, "Host") {
			return errors.New("codec: header Host is a field of its own")
		}
	}
	return CheckAcceptHeader(o.Header)
}

// AppendOffer appends to dst the request of the opening handshake (RFC 6455 section 4.1), and
// returns the result. o has passed [CheckOffer] and is borrowed. Safe for concurrent use.
func AppendOffer(dst []byte, o Offer) []byte {
	dst = append(append(append(dst, "GET "...), o.Target...), " HTTP/1.1\r\n"...)
	dst = appendLine(dst, "Host", o.Host)
	dst = append(dst, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"...)
	dst = appendLine(dst, "Sec-WebSocket-Key", o.Key)
	if len(o.Subprotocols) > 0 {
		dst = appendLine(dst, "Sec-WebSocket-Protocol", strings.Join(o.Subprotocols, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Header)) {
		for _, value := range o.Header[name] {
			dst = appendLine(dst, name, value)
		}
	}
	return append(dst, "\r\n"...)
}

// CheckAccept returns the subprotocol that the response r with status 101 has chosen, or an error
// if r does not accept o (RFC 6455 section 4.1). r and o are borrowed. Safe for concurrent use.
func CheckAccept(r *http.Response, o Offer) (subprotocol string, err error) {
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols:
		return "", fmt.Errorf("codec: the server answers %d to the handshake", r.StatusCode)
	case !HeaderHasToken(r.Header, "Upgrade", "websocket"), !HeaderHasToken(r.Header, "Connection", "upgrade"):
		return "", errors.New("codec: the response does not upgrade the connection")
	case strings.TrimSpace(r.Header.Get("Sec-WebSocket-Accept")) != AcceptKey(o.Key):
		return "", errors.New("codec: the response does not answer the key")
	case r.Header.Get(extensionsHeader) != "":
		return "", errors.New("codec: the response has an extension that was not offered")
	}
	switch chosen := r.Header[protocolHeader]; {
	case len(chosen) == 0:
		return "", nil
	case len(chosen) > 1 || !slices.Contains(o.Subprotocols, chosen[0]):
		return "", errors.New("codec: the response has a subprotocol that was not offered")
	default:
		return chosen[0], nil
	}
}

// AppendMaskedFrame appends to dst one frame of a client, with FIN set and masked with key, and
// returns the result. The key is drawn at random for each frame (RFC 6455 section 5.3). The
// payload is borrowed. The caller keeps it within MaxControlPayload for a control opcode.
// Safe for concurrent use.
func AppendMaskedFrame(dst []byte, op Opcode, key [4]byte, payload []byte) []byte {
	first := bitFIN | byte(op)
	switch n := len(payload); {
	case n <= maxLenOne:
		dst = append(dst, first, bitMask|byte(n))
	case n <= math.MaxUint16:
		dst = append(dst, first, bitMask|lenTwo, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, bitMask|lenEight), uint64(n))
	}
	dst = append(dst, key[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[at:], key, 0)
	return dst
}
