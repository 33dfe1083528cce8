package codec_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func TestChooseSubprotocol(t *testing.T) {
	tests := []struct {
		name      string
		offers    []string
		supported []string
		want      string
	}{
		{"none offered", nil, []string{"a"}, ""},
		{"none supported", []string{"a"}, nil, ""},
		{"neither", nil, nil, ""},
		{"the only one", []string{"a"}, []string{"a"}, "a"},
		{"the server's order", []string{"a, b, c"}, []string{"c", "b"}, "c"},
		{"the server's second", []string{"a,b"}, []string{"c", "b"}, "b"},
		{"in a second value", []string{"a", "x ,\tb"}, []string{"b"}, "b"},
		{"no match", []string{"a, b"}, []string{"c"}, ""},
		{"another case", []string{"CHAT"}, []string{"chat"}, ""},
		{"empty offers", []string{"", ",, ,b,"}, []string{"a", "b"}, "b"},
		{"commas alone", []string{" , ,"}, []string{"a"}, ""},
		{"repeated offers", []string{"b, b", "a,b"}, []string{"c", "b"}, "b"},
		{"offers that are no tokens", []string{`b c, "b", b/c, caf\u00e9, b`}, []string{"b"}, "b"},
		{"a longer name", []string{"chat2"}, []string{"chat"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.offers != nil {
				h["Sec-Websocket-Protocol"] = tt.offers
			}
			got := ""
			if i := codec.ChooseSubprotocol(h, tt.supported); i >= 0 {
				got = tt.supported[i]
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "chat": true, "v1.chat-2_x": true, "a b": false, "a,b": false, "a/b": false, "a;b": false,
		"caf\u00e9": false,
	} {
		assert.Equal(t, want, codec.IsToken(s), "%q", s)
	}
}

// A head full of different offers costs little time for its size.
func BenchmarkChooseSubprotocolManyOffers(b *testing.B) {
	var offers strings.Builder
	for i := 0; offers.Len() < headLimits.Bytes-400; i++ {
		offers.WriteString(strconv.FormatInt(int64(i), 36) + ",")
	}
	r, _, err := parse([]byte(strings.Replace(sampleRequest, "chat, superchat", offers.String(), 1)))
	require.NoError(b, err)
	supported := make([]string, 255)
	for i := range supported {
		supported[i] = "V" + strconv.Itoa(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if i := codec.ChooseSubprotocol(r.Header, supported); i >= 0 {
			b.Fatal(i)
		}
	}
}
