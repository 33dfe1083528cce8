package codec_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// trusted are the proxies of these tests; the peer is proxyPeer.
var trusted = codec.TrustedProxies{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48"),
}

const proxyPeer = "10.0.0.1:5000"

// clientOf returns the client's address of a request with the lines of name.
func clientOf(t *testing.T, peer, name string, lines ...string) string {
	t.Helper()
	addr := netip.AddrPort{}
	if peer != "" {
		addr = netip.MustParseAddrPort(peer)
	}
	got := trusted.Client(addr, http.Header{name: lines})
	if !got.IsValid() {
		return ""
	}
	return got.String()
}

func TestXForwardedFor(t *testing.T) {
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"none":                         {nil, proxyPeer},
		"one":                          {[]string{"192.0.2.1"}, "192.0.2.1:0"},
		"forged before it":             {[]string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1:0"},
		"forged line before it":        {[]string{"6.6.6.6", "192.0.2.1"}, "192.0.2.1:0"},
		"forged as a proxy":            {[]string{"10.0.0.9, 192.0.2.1"}, "192.0.2.1:0"},
		"a second proxy":               {[]string{"6.6.6.6, 192.0.2.1, 10.0.0.2"}, "192.0.2.1:0"},
		"a second proxy, line by line": {[]string{"6.6.6.6", "192.0.2.1", "10.0.0.2"}, "192.0.2.1:0"},
		"proxies alone":                {[]string{"10.0.0.4,10.0.0.3,10.0.0.2"}, "10.0.0.4:0"},
		"no spaces, tabs":              {[]string{"6.6.6.6,\t192.0.2.1\t,10.0.0.2"}, "192.0.2.1:0"},
		"port":                         {[]string{"192.0.2.1:4711"}, "192.0.2.1:4711"},
		"IPv6":                         {[]string{"2001:db8::7"}, "[2001:db8::7]:0"},
		"IPv6 in brackets":             {[]string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		"IPv6 with port":               {[]string{"[2001:db8::7]:4711"}, "[2001:db8::7]:4711"},
		"IPv6 proxy":                   {[]string{"192.0.2.1, 2001:db8:ffff::1"}, "192.0.2.1:0"},
		"IPv4 mapped":                  {[]string{"::ffff:192.0.2.1"}, "192.0.2.1:0"},
		"proxy, IPv4 mapped":           {[]string{"192.0.2.1, ::ffff:10.0.0.2"}, "192.0.2.1:0"},
		"unknown":                      {[]string{"6.6.6.6, unknown"}, proxyPeer},
		"unknown behind a proxy":       {[]string{"6.6.6.6, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		"empty":                        {[]string{""}, proxyPeer},
		"empty entry":                  {[]string{"6.6.6.6,"}, proxyPeer},
		"empty entry behind a proxy":   {[]string{"6.6.6.6,, 10.0.0.2"}, "10.0.0.2:0"},
		"nginx over a Unix socket":     {[]string{"6.6.6.6, unix:"}, proxyPeer},
		"host name":                    {[]string{"6.6.6.6, localhost"}, proxyPeer},
		"port too large":               {[]string{"6.6.6.6, 192.0.2.1:65536"}, proxyPeer},
		"port missing":                 {[]string{"6.6.6.6, 192.0.2.1:"}, proxyPeer},
		"unspecified":                  {[]string{"6.6.6.6, 0.0.0.0"}, proxyPeer},
		"unspecified, mapped":          {[]string{"6.6.6.6, ::ffff:0.0.0.0"}, proxyPeer},
		"zone":                         {[]string{"6.6.6.6, fe80::1%eth0"}, proxyPeer},
		"IPv4 in brackets":             {[]string{"6.6.6.6, [192.0.2.1]"}, proxyPeer},
		"bracket open":                 {[]string{"6.6.6.6, [2001:db8::7"}, proxyPeer},
		"behind the bracket":           {[]string{"6.6.6.6, [2001:db8::7]4711"}, proxyPeer},
		"spaces instead of commas":     {[]string{"6.6.6.6 192.0.2.1"}, proxyPeer},
		"quotes":                       {[]string{`6.6.6.6, "192.0.2.1"`}, proxyPeer},
		"leading zeros":                {[]string{"6.6.6.6, 010.0.0.2"}, proxyPeer},
		"very long":                    {[]string{strings.Repeat("1", 1<<16)}, proxyPeer},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, clientOf(t, proxyPeer, "X-Forwarded-For", test.lines...))
		})
	}
}

func TestForwarded(t *testing.T) {
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"one":                        {[]string{"for=192.0.2.1"}, "192.0.2.1:0"},
		"parameters":                 {[]string{"by=10.0.0.1;For=192.0.2.1;host=a;proto=https"}, "192.0.2.1:0"},
		"RFC 7239 section 4":         {[]string{`for="_gazonk"`}, proxyPeer},
		"RFC 7239 section 4, IPv6":   {[]string{`For="[2001:db8:cafe::17]:4711"`}, "[2001:db8:cafe::17]:4711"},
		"RFC 7239 section 4, two":    {[]string{"for=192.0.2.43, for=198.51.100.17"}, "198.51.100.17:0"},
		"RFC 7239 section 7.1":       {[]string{`for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown`}, proxyPeer},
		"unknown behind a proxy":     {[]string{"for=6.6.6.6, for=unknown, for=10.0.0.2"}, "10.0.0.2:0"},
		"forged before it":           {[]string{"for=6.6.6.6, for=192.0.2.1"}, "192.0.2.1:0"},
		"forged line before it":      {[]string{"for=6.6.6.6", "for=192.0.2.1"}, "192.0.2.1:0"},
		"a second proxy":             {[]string{"for=6.6.6.6, for=192.0.2.1;proto=http, for=10.0.0.2"}, "192.0.2.1:0"},
		"quoted IPv4 with port":      {[]string{`for="192.0.2.1:4711"`}, "192.0.2.1:4711"},
		"port without quotes":        {[]string{"for=192.0.2.1:4711"}, "192.0.2.1:4711"},
		"obfuscated port":            {[]string{`for="192.0.2.1:_p"`}, "192.0.2.1:0"},
		"obfuscated port, empty":     {[]string{`for=6.6.6.6, for="192.0.2.1:_"`}, proxyPeer},
		"quoted pairs":               {[]string{`for="192\.0.2\.1"`}, "192.0.2.1:0"},
		"comma in quotes":            {[]string{`for=192.0.2.1;host="a,for=6.6.6.6"`}, "192.0.2.1:0"},
		"quote in quotes":            {[]string{`for=192.0.2.1;host="\",for=6.6.6.6,\""`}, "192.0.2.1:0"},
		"backslash in quotes":        {[]string{`for=192.0.2.1;host="\\"`}, "192.0.2.1:0"},
		"client opens quotes":        {[]string{`for="6.6.6.6, for=192.0.2.1`}, "192.0.2.1:0"},
		"client opens, proxy quotes": {[]string{`for="6.6.6.6, for="192.0.2.1:4711"`}, "192.0.2.1:4711"},
		"client escapes":             {[]string{`for="\, for="192.0.2.1"`}, "192.0.2.1:0"},
		"client opens, two proxies":  {[]string{`for="6.6.6.6, for=10.0.0.2`}, "10.0.0.2:0"},
		"no for":                     {[]string{"for=6.6.6.6, proto=https"}, proxyPeer},
		"two for":                    {[]string{"for=6.6.6.6;for=192.0.2.1"}, proxyPeer},
		"empty for":                  {[]string{"for=6.6.6.6, for="}, proxyPeer},
		"empty quotes":               {[]string{`for=6.6.6.6, for=""`}, proxyPeer},
		"empty":                      {[]string{""}, proxyPeer},
		"spaces around":              {[]string{"\tfor=192.0.2.1 ; proto=http "}, "192.0.2.1:0"},
		"no pair":                    {[]string{"for=6.6.6.6, 192.0.2.1"}, proxyPeer},
		"text behind quotes":         {[]string{`for=6.6.6.6, for="192.0.2.1"x`}, proxyPeer},
		"semicolon at the end":       {[]string{"for=6.6.6.6, for=192.0.2.1;"}, proxyPeer},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, clientOf(t, proxyPeer, "Forwarded", test.lines...))
		})
	}
}

func TestClientOfPeer(t *testing.T) {
	assert.Equal(t, "6.6.6.6:1", clientOf(t, "6.6.6.6:1", "X-Forwarded-For", "192.0.2.1"), "an untrusted peer")
	assert.Equal(t, "6.6.6.6:1", clientOf(t, "6.6.6.6:1", "Forwarded", "for=192.0.2.1"), "an untrusted peer")
	assert.Equal(t, "192.0.2.1:0", clientOf(t, "[::ffff:10.0.0.1]:1", "X-Forwarded-For", "192.0.2.1"), "IPv4 mapped")
	assert.Equal(t, "192.0.2.1:0", clientOf(t, "[2001:db8:ffff::1]:1", "X-Forwarded-For", "192.0.2.1"), "IPv6")
	assert.Equal(t, "192.0.2.1:0", clientOf(t, "", "X-Forwarded-For", "192.0.2.1"), "Unix")
	assert.Empty(t, clientOf(t, "", "X-Forwarded-For", "unknown"), "Unix, no client")

	peer := netip.MustParseAddrPort(proxyPeer)
	both := http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Forwarded": {"for=6.6.6.6"}}
	assert.Equal(t, "192.0.2.1:0", trusted.Client(peer, both).String(), "X-Forwarded-For comes first")

	forged := http.Header{"X-Forwarded-For": {"192.0.2.1"}}
	assert.Equal(t, peer, codec.TrustedProxies(nil).Client(peer, forged))
	assert.Zero(t, codec.TrustedProxies(nil).Client(netip.AddrPort{}, forged), "Unix, nobody is trusted")
	unixOnly := codec.TrustedProxies{}
	assert.Equal(t, peer, unixOnly.Client(peer, forged))
	assert.Equal(t, "192.0.2.1:0", unixOnly.Client(netip.AddrPort{}, forged).String())

	zone := codec.TrustedProxies{netip.MustParsePrefix("fe80::/10")}
	assert.True(t, zone.Trusts(netip.MustParseAddr("fe80::1%eth0")))
}

func TestClientAllocatesNothing(t *testing.T) {
	peer, h := netip.MustParseAddrPort(proxyPeer), http.Header{"X-Forwarded-For": {"6.6.6.6, 192.0.2.1", "10.0.0.2"}}
	assert.Zero(t, testing.AllocsPerRun(100, func() { trusted.Client(peer, h) }))
}

// Nothing that a client sends hides or changes the entry that a proxy adds to it.
func FuzzForwarded(f *testing.F) {
	for _, sent := range []string{"", ",", "6.6.6.6", `"`, `for="6.6.6.6`, `for="a\`, `for="a\\`, "for=6.6.6.6;", `"\"`} {
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		for _, added := range []string{"192.0.2.1:4711", "192.0.2.1:4711, 10.0.0.2"} {
			require.Equal(t, "192.0.2.1:4711", clientOf(t, proxyPeer, "X-Forwarded-For", sent+", "+added))
			require.Equal(t, "192.0.2.1:4711", clientOf(t, proxyPeer, "X-Forwarded-For", sent, added))
		}
		for _, added := range []string{
			`for="192.0.2.1:4711"`, `by="a\"b";for=192.0.2.1:4711;host="\\"`, `for="192.0.2.1:4711", for=10.0.0.2;proto=http`,
		} {
			require.Equal(t, "192.0.2.1:4711", clientOf(t, proxyPeer, "Forwarded", sent+", "+added))
			require.Equal(t, "192.0.2.1:4711", clientOf(t, proxyPeer, "Forwarded", sent, added))
		}
		clientOf(t, proxyPeer, "Forwarded", sent) // returns
	})
}
