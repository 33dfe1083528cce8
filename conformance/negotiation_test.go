package conformance_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agreement holds the parameters of an answer.
type agreement struct {
	serverNoTakeover, clientNoTakeover bool
	serverBits, clientBits             int // 0 if the answer has none
}

// params splits a list of parameters without quotes.
func params(t testing.TB, extension string) map[string]string {
	m := make(map[string]string)
	parts := strings.Split(extension, ";")
	require.Equal(t, "permessage-deflate", strings.TrimSpace(parts[0]))
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		require.NotContains(t, m, name, "twice in %q", extension)
		m[name] = value
	}
	return m
}

// readAnswer checks an answer by RFC 7692 section 7.1, and against its offer.
func readAnswer(t testing.TB, answer, offer string) (a agreement) {
	offered, bits := params(t, offer), func(value string) int {
		n, err := strconv.Atoi(value)
		require.NoError(t, err, answer)
		require.True(t, n >= 8 && n <= 15 && strconv.Itoa(n) == value, answer)
		return n
	}
	for name, value := range params(t, answer) {
		asked, ok := offered[name]
		switch name {
		case "server_no_context_takeover":
			require.Empty(t, value)
			a.serverNoTakeover = true
		case "client_no_context_takeover":
			require.Empty(t, value)
			a.clientNoTakeover = true
		case "server_max_window_bits":
			if a.serverBits = bits(value); ok {
				require.LessOrEqual(t, a.serverBits, bits(asked), "answer %q exceeds the offer", answer)
			}
		case "client_max_window_bits":
			require.True(t, ok, "answer %q, and the client did not offer it", answer)
			if a.clientBits = bits(value); asked != "" {
				require.LessOrEqual(t, a.clientBits, bits(asked), "answer %q exceeds the offer", answer)
			}
		default:
			require.Failf(t, "unknown parameter", "%q", answer)
		}
	}
	if _, ok := offered["server_no_context_takeover"]; ok {
		require.True(t, a.serverNoTakeover, "RFC 7692 section 7.1.1.1: %q", answer)
	}
	if _, ok := offered["server_max_window_bits"]; ok {
		require.NotZero(t, a.serverBits, "RFC 7692 section 7.1.2.1: %q", answer)
	}
	return a
}

// use makes c inflate the server's messages within the agreed parameters.
func (a agreement) use(c *client) {
	z := &window{size: 1 << 15}
	if a.serverBits != 0 {
		z.size = 1 << a.serverBits
	}
	c.inflate = func(payload string) (string, error) {
		if a.serverNoTakeover {
			z.history = nil
		}
		return z.message(payload)
	}
}

// connectDeflate connects with one offer that must be accepted.
func (s *server) connectDeflate(t testing.TB, w way, offer string) (*client, agreement) {
	t.Helper()
	c, resp := s.connect(t, w, offering(offer))
	require.Len(t, resp.Header.Values("Sec-WebSocket-Extensions"), 1)
	a := readAnswer(t, resp.Header.Get("Sec-WebSocket-Extensions"), offer)
	a.use(c)
	return c, a
}

// TestDeflateNegotiation crosses all parameters of an offer with the settings of a server, and
// checks answer and stream: an inflater refuses matches beyond the agreed window.
func TestDeflateNegotiation(t *testing.T) {
	near, far := pattern(2000), compressible(40_000)
	for _, cfg := range []struct {
		takeover bool
		bits     int
	}{{false, 0}, {true, 0}, {false, 10}, {true, 10}, {true, 8}} {
		t.Run(fmt.Sprintf("takeover %v, bits %d", cfg.takeover, cfg.bits), func(t *testing.T) {
			s := start(t, compressing(1, cfg.takeover, cfg.bits))
			for _, offer := range offers() {
				t.Run("7692 7.1/"+offer, func(t *testing.T) {
					t.Parallel()
					c, a := s.connectDeflate(t, native, offer)
					if cfg.bits != 0 {
						require.True(t, a.serverBits != 0 && a.serverBits <= cfg.bits, "%+v", a)
					}
					if !cfg.takeover {
						require.True(t, a.serverNoTakeover && a.clientNoTakeover, "%+v", a)
					}
					require.False(t, cfg.takeover && a.serverNoTakeover && !strings.Contains(offer, "server_no"), "%+v", a)
					require.False(t, cfg.takeover && a.clientNoTakeover && !strings.Contains(offer, "client_no"), "%+v", a)
					exchange(c, a, near, far)
				})
			}
		})
	}
}

// offers returns all combinations of parameters.
func offers() []string {
	list := []string{"permessage-deflate"}
	for _, params := range [][]string{
		{"", "; server_no_context_takeover"},
		{"", "; client_no_context_takeover"},
		{
			"", "; server_max_window_bits=8", "; server_max_window_bits=9", "; server_max_window_bits=12",
			"; server_max_window_bits=15",
		},
		{
			"", "; client_max_window_bits", "; client_max_window_bits=8", "; client_max_window_bits=9",
			"; client_max_window_bits=15",
		},
	} {
		var longer []string
		for _, offer := range list {
			for _, p := range params {
				longer = append(longer, offer+p)
			}
		}
		list = longer
	}
	return list
}

// exchange sends messages within the agreed parameters and compares the echoes.
func exchange(c *client, a agreement, near, far string) {
	c.t.Helper()
	var z *compressor
	send := func(s string) {
		if z == nil || a.clientNoTakeover {
			z = new(compressor)
		}
		c.send(frame{op: opText, rsv: 4, payload: z.message(s)})
		c.expect(text(s))
	}
	send("short")
	send("short and short again")
	if a.clientBits == 0 || a.clientBits == 15 {
		send(near)
		send(near)
		send(far)
		send(far)
	} else { // no matches, because our compressor has only one window size
		for _, s := range []string{near, near, far, far} {
			c.send(text(s))
			c.expect(text(s))
		}
	}
	c.expectAlive()
}

// TestDeflateOffers sends offers that are declined, and falls back to the next.
func TestDeflateOffers(t *testing.T) {
	s := start(t, compressing(1, false, 0))
	const good = "permessage-deflate"
	const accepted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	declined := []string{
		"permessage-deflate; unknown", "permessage-deflate; unknown=1",
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
		"permessage-deflate; client_max_window_bits; client_max_window_bits=10",
		"permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
		"permessage-deflate; server_max_window_bits", "permessage-deflate; server_no_context_takeover=1",
		"permessage-deflate; client_no_context_takeover=true",
		"permessage-deflate; server_no_context_takeover=\"1\"", "x-webkit-deflate-frame", "permessage-bzip2", "deflate",
	}
	for _, v := range []string{
		"0", "1", "7", "16", "17", "08", "09", "015", "100", "-9", "x", "9x", "1e1", "0xf", "\"7\"", "\"16\"",
		"\"09\"",
	} {
		declined = append(
			declined, "permessage-deflate; server_max_window_bits="+v,
			"permessage-deflate; client_max_window_bits="+v,
		)
	}
	check := func(id, want string, values ...string) {
		for _, w := range bothWays {
			t.Run(string(w)+"/"+id, func(t *testing.T) {
				t.Parallel()
				c, resp := s.connect(t, w, offering(values...))
				answers := resp.Header.Values("Sec-WebSocket-Extensions")
				if want == "" {
					require.Empty(t, answers)
					tc := testCase{send: wire(deflated(opText, "not agreed on")), code: 1002}
					tc.run(c)
					return
				}
				require.Len(t, answers, 1)
				assert.Equal(t, params(t, want), params(t, answers[0]))
				readAnswer(t, answers[0], "permessage-deflate; client_max_window_bits").use(c)
				c.send(deflated(opText, pattern(600)))
				c.expect(text(pattern(600)))
				c.expectAlive()
			})
		}
	}
	for _, offer := range declined {
		check("7692 7.1/declined/"+offer, "", offer)
		check("7692 5.1/declined, then a good one/"+offer, accepted, offer+", "+good)
		check("7692 5.1/declined, then a good one in another line/"+offer, accepted, offer, good)
	}
	check(
		"7692 5.1/the first that fits", accepted+"; server_max_window_bits=10",
		"permessage-deflate; server_max_window_bits=10, permessage-deflate",
	)
	check("7692 5.1/among others", accepted, "x-a; b=c; d=\"e\", permessage-deflate , x-f")
	check(
		"6455 9.1/quoted value", accepted+"; server_max_window_bits=10",
		"permessage-deflate; server_max_window_bits=\"10\"",
	)
	check("6455 9.1/quoted 9", accepted+"; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=\"9\"")
	check("6455 9.1/no spaces", accepted+"; server_max_window_bits=9", "permessage-deflate;server_max_window_bits=9")
	check(
		"6455 9.1/many spaces", accepted+"; server_max_window_bits=9",
		"  permessage-deflate \t ;  server_max_window_bits=9 \t",
	)
	check("9110 5.6.1/empty elements", accepted, ", ,permessage-deflate,,")
	check("7692 7.1/without value for client_max_window_bits", accepted, "permessage-deflate; client_max_window_bits")
	check("6455 9.1/none", "", "")
	for _, v := range []string{
		"permessage-deflate;", "permessage-deflate; ;", "; permessage-deflate",
		"permessage-deflate; server_max_window_bits=", "permessage-deflate; =10",
		"permessage-deflate server_max_window_bits", "permessage-deflate; server_max_window_bits=\"10",
		"permessage-deflate; server_max_window_bits=10\"",
		"permessage-deflate; server_max_window_bits=\"\"", "permessage-deflate; server_max_window_bits=\"1 0\"",
		"permessage-deflate; a=b=c", "permessage/deflate",
		"permessage-deflate; server_max_window_bits=(10)", "\"permessage-deflate\"", "permessage-deflate; a b",
		"permessage-deflate, @", "=", "permessage-deflate; b\xe9",
	} {
		for _, w := range bothWays {
			t.Run(string(w)+"/6455 9.1/malformed/"+v, func(t *testing.T) {
				t.Parallel()
				hc := handshakeCase{request: upgradeRequest(offering(v)), status: 400}
				hc.run(s.dial(t, w), 0)
			})
		}
	}
}
