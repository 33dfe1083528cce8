package codec_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

// TestOfferIsAnOpeningHandshake holds the client's request to the server's own checks.
func TestOfferIsAnOpeningHandshake(t *testing.T) {
	o := codec.Offer{
		Host: "example.com:8080", Target: "/ws?a=b", Key: codec.NewKey(),
		Subprotocols: []string{"v2", "v1"}, Header: http.Header{"Authorization": {"Bearer x"}},
	}
	require.NoError(t, codec.CheckOffer(o))
	head := codec.AppendOffer(nil, o)
	r, n, err := codec.ParseRequest(head, codec.HeadLimits{Bytes: 1 << 14, Lines: 64})
	require.NoError(t, err)
	assert.Equal(t, len(head), n)
	require.NoError(t, codec.CheckUpgrade(r))
	assert.Equal(t, o.Host, r.Host)
	assert.Equal(t, o.Target, r.RequestURI)
	assert.Equal(t, "Bearer x", r.Header.Get("Authorization"))
	assert.Equal(t, 1, codec.ChooseSubprotocol(r.Header, []string{"v3", "v1"}))
	assert.NotEqual(t, o.Key, codec.NewKey())
}

func TestCheckOffer(t *testing.T) {
	good := codec.Offer{Host: "h", Target: "/"}
	require.NoError(t, codec.CheckOffer(good))
	for name, change := range map[string]func(o *codec.Offer){
		"no host":              func(o *codec.Offer) { o.Host = "" },
		"host with a line end": func(o *codec.Offer) { o.Host = "h\r\nX: y" },
		"relative target":      func(o *codec.Offer) { o.Target = "ws" },
		"target with a space":  func(o *codec.Offer) { o.Target = "/a b" },
		"subprotocol":          func(o *codec.Offer) { o.Subprotocols = []string{"a,b"} },
		"header of handshake":  func(o *codec.Offer) { o.Header = http.Header{"Sec-WebSocket-Key": {"x"}} },
		"header with line end": func(o *codec.Offer) { o.Header = http.Header{"A": {"x\r\nB: y"}} },
		"header with colon":    func(o *codec.Offer) { o.Header = http.Header{"A:": {"x"}} },
		"header Host":          func(o *codec.Offer) { o.Header = http.Header{"host": {"x"}} },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			assert.Error(t, codec.CheckOffer(o))
		})
	}
}

func TestCheckAccept(t *testing.T) {
	o := codec.Offer{Host: "h", Target: "/", Key: codec.NewKey(), Subprotocols: []string{"v1", "v2"}}
	accept := func(change func(r *http.Response)) (string, error) {
		r := &http.Response{StatusCode: 101, Header: http.Header{
			"Upgrade": {"WebSocket"}, "Connection": {"keep-alive, Upgrade"}, "Sec-Websocket-Accept": {codec.AcceptKey(o.Key)},
		}}
		change(r)
		return codec.CheckAccept(r, o)
	}
	chosen, err := accept(func(*http.Response) {})
	require.NoError(t, err)
	assert.Empty(t, chosen)
	chosen, err = accept(func(r *http.Response) { r.Header.Set("Sec-WebSocket-Protocol", "v2") })
	require.NoError(t, err)
	assert.Equal(t, "v2", chosen)
	for name, change := range map[string]func(r *http.Response){
		"status":             func(r *http.Response) { r.StatusCode = 200 },
		"upgrade":            func(r *http.Response) { r.Header.Set("Upgrade", "h2c") },
		"connection":         func(r *http.Response) { r.Header.Del("Connection") },
		"key":                func(r *http.Response) { r.Header.Set("Sec-WebSocket-Accept", codec.AcceptKey("x")) },
		"extension":          func(r *http.Response) { r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate") },
		"other subprotocol":  func(r *http.Response) { r.Header.Set("Sec-WebSocket-Protocol", "v3") },
		"second subprotocol": func(r *http.Response) { r.Header["Sec-Websocket-Protocol"] = []string{"v1", "v2"} },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := accept(change)
			assert.Error(t, err)
		})
	}
}

func TestMaskedFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536} {
		payload, key := bytes.Repeat([]byte("ab"), size/2+1)[:size], [4]byte{1, 2, 3, 4}
		want := clientFrame(codec.OpBinary, true, payload, key)
		assert.Equal(t, append([]byte("x"), want...), codec.AppendMaskedFrame([]byte("x"), codec.OpBinary, key, payload))
	}
}

// unmasked returns the frames of a client's stream as a server would send them.
func unmasked(t *testing.T, stream []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	for in := bytes.NewReader(stream); in.Len() > 0; {
		h, err := ws.ReadHeader(in)
		require.NoError(t, err)
		payload := make([]byte, h.Length)
		_, err = io.ReadFull(in, payload)
		require.NoError(t, err)
		require.NoError(t, ws.WriteFrame(&out, ws.UnmaskFrame(ws.Frame{Header: h, Payload: payload})))
	}
	return out.Bytes()
}

// TestNextUnmasked compares the messages of a server's stream with those of a client's.
func TestNextUnmasked(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 5))
		masked, want, _ := randomStream(r, 12)
		stream := unmasked(t, masked)
		for name, cut := range cuts() {
			var d codec.Decoder
			var got []event
			for rest := bytes.Clone(stream); len(rest) > 0; {
				size := min(max(cut(len(rest)), 1), len(rest))
				for b := rest[:size]; len(b) > 0; {
					n, m, ok, err := d.NextUnmasked(b, 0)
					require.NoError(t, err)
					b = b[n:]
					if ok {
						got = append(got, event{m.Op, string(m.Payload)})
					}
				}
				d.Done()
				rest = rest[size:]
			}
			require.False(t, d.Pending())
			require.Equal(t, want, got, "%s, seed %d", name, seed)
		}
	}
}

func TestNextUnmaskedRejects(t *testing.T) {
	for name, test := range map[string]struct {
		stream []byte
		err    error
	}{
		"mask":           {frame(codec.OpText, true, "a"), codec.ErrMasked},
		"reserved bits":  {[]byte{0xC1, 0}, codec.ErrReservedBits},
		"text":           {[]byte{0x81, 1, 0xFF}, codec.ErrInvalidUTF8},
		"too large":      {[]byte{0x82, 101}, codec.ErrMessageTooLarge},
		"not minimal":    {[]byte{0x82, 126, 0, 1}, codec.ErrLengthNotMinimal},
		"fragmented end": {[]byte{0x08, 0}, codec.ErrFragmentedControl},
	} {
		t.Run(name, func(t *testing.T) {
			var d codec.Decoder
			_, _, _, err := d.NextUnmasked(test.stream, 100)
			assert.ErrorIs(t, err, test.err)
			d.Release()
		})
	}
}
