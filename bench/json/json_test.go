package json_test

import (
	"bytes"
	stdjson "encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/bytedance/sonic"
	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
	goccy "github.com/goccy/go-json"
	segmentio "github.com/segmentio/encoding/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// library is a pair of functions for ws.WithJSON. Immutable.
type library struct {
	name      string
	marshal   func(v any) ([]byte, error)
	unmarshal func(data []byte, v any) error
}

var libraries = []library{
	{"default", nil, nil}, // pooled encoding/json
	{"encoding/json", stdjson.Marshal, stdjson.Unmarshal},
	{"go-json-experiment v1", jsonv1.Marshal, jsonv1.Unmarshal},
	{
		"go-json-experiment v2", func(v any) ([]byte, error) { return jsonv2.Marshal(v) },
		func(data []byte, v any) error { return jsonv2.Unmarshal(data, v) },
	},
	{"segmentio", segmentio.Marshal, segmentio.Unmarshal},
	{"goccy", goccy.Marshal, goccy.Unmarshal},
	{"sonic ConfigStd", sonic.ConfigStd.Marshal, sonic.ConfigStd.Unmarshal},
	{"sonic ConfigDefault", sonic.ConfigDefault.Marshal, sonic.ConfigDefault.Unmarshal},
}

// document has fields of the kinds that applications use.
type document struct {
	A int8           `json:"a"`
	B string         `json:"b"`
	C []document     `json:"c"`
	D map[string]any `json:"d"`
	E *float64       `json:"e"`
	F any            `json:"f"`
	G uint64         `json:"g,omitempty"`
	H bool           `json:"h"`
}

var seeds = []string{
	`{"a":1,"b":"x","c":[{"a":2,"b":"y"}],"d":{"k":[1,null,true]},"e":1e9,"f":{"x":[1,2]},"g":7,"h":true}`,
	`{"b":"\u00e9\ud83d\ude00\ud800 <&>\u2028","f":"\/\b\f\n\r\t\"\\"}`,
	`{"a":127,"g":18446744073709551615,"e":-0.0,"f":1.5e-7}`, `{"c":[[]]}`, `{"d":{"":{}}}`,
	` {"a" : 1 } `, `[ {} ]`, `null`,
}

// mutated returns a document with a few bytes changed, removed or inserted.
func mutated(r *rand.Rand) []byte {
	const alphabet = "{}[]:,\"\\u0123456789eE+-. \t\ntfnabcdefgh\x00\xff\xc3\xa9"
	b := []byte(seeds[r.IntN(len(seeds))])
	for range r.IntN(4) {
		i, c := r.IntN(len(b)), alphabet[r.IntN(len(alphabet))]
		switch r.IntN(3) {
		case 0:
			b[i] = c
		case 1:
			b = append(b[:i], b[i+1:]...)
		default:
			b = append(b[:i], append([]byte{c}, b[i:]...)...)
		}
	}
	return b
}

// difference returns the way in which l differs from encoding/json for data, or "".
func (l *library) difference(data []byte) string {
	var want, got document
	borrowed := bytes.Clone(data)
	wantErr, err := stdjson.Unmarshal(data, &want), l.unmarshal(borrowed, &got)
	clear(borrowed) // got must not refer to it
	switch valid := stdjson.Valid(data); {
	case !valid && err == nil:
		return "accepts invalid JSON"
	case (wantErr == nil) && err != nil:
		return "refuses"
	case wantErr != nil && err == nil:
		return "accepts another type"
	case err == nil && !reflect.DeepEqual(want, got):
		return "decodes another value"
	case err != nil:
		return ""
	}
	a, errA := stdjson.Marshal(want)
	b, errB := l.marshal(want)
	switch {
	case (errA == nil) != (errB == nil):
		return "encodes with another error"
	case !stdjson.Valid(b):
		return "encodes invalid JSON"
	case !bytes.Equal(a, b):
		return "encodes other bytes"
	}
	return ""
}

// TestDifferences counts the differences of each library. The two of the Go project have none.
func TestDifferences(t *testing.T) {
	const documents = 50_000
	for _, l := range libraries[1:] {
		t.Run(l.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			counts, examples := map[string]int{}, map[string]string{}
			for range documents {
				data := mutated(r)
				if d := l.difference(data); d != "" {
					counts[d]++
					if old, ok := examples[d]; !ok || len(data) < len(old) {
						examples[d] = string(data)
					}
				}
			}
			for d, n := range counts {
				t.Logf("%s: %d of %d, such as %q", d, n, documents, examples[d])
			}
			if l.name == "encoding/json" || l.name == "go-json-experiment v1" {
				assert.Empty(t, counts)
			}
		})
	}
}

// echoed is the data of the benchmark's requests, as in bench echo -mode json.
type echoed struct {
	Seq  uint64 `json:"seq"`
	Sent int64  `json:"sent"`
	Pad  string `json:"pad"`
}

// BenchmarkTypedRequest measures requests of 512 bytes, 16 in flight, the client included.
func BenchmarkTypedRequest(b *testing.B) {
	for _, l := range libraries {
		b.Run("library="+strings.ReplaceAll(l.name, " ", "-"), func(b *testing.B) { benchmark(b, &l) })
	}
}

func benchmark(b *testing.B, l *library) {
	const inFlight = 16
	m, err := ws.NewManager(ws.WithListenAddr("tcp://127.0.0.1:0"), ws.WithHandlerMode(ws.Inline),
		ws.WithJSON(l.marshal, l.unmarshal))
	require.NoError(b, err)
	require.NoError(b, ws.Handle(m, "echo", func(_ *ws.Client, req *echoed) (*echoed, error) { return req, nil }))
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // ended by Shutdown, below
	conn, err := net.Dial("tcp", m.Addr().String())
	require.NoError(b, err)
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	require.NoError(b, err)
	head := make([]byte, 4096)
	_, err = conn.Read(head)
	require.NoError(b, err)
	message := `{"type":"request","event":"echo","request_id":"1","data":{"seq":1,"sent":1795746347000000000,"pad":"`
	message += strings.Repeat("x", 510-len(message)) + `"}}`
	frame := append([]byte{0x81, 0x80 | 126, byte(len(message) >> 8), byte(len(message)), 0, 0, 0, 0}, message...)
	requests := bytes.Repeat(frame, inFlight)
	_, err = conn.Write(frame)
	require.NoError(b, err)
	n, err := conn.Read(head)
	require.NoError(b, err)
	require.Contains(b, string(head[:n]), `"code":200`, strconv.Quote(message))
	answers := make([]byte, inFlight*n)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%inFlight != 0 {
			continue
		}
		if _, err := conn.Write(requests); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, answers); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, conn.Close())
	require.NoError(b, m.Shutdown(b.Context()))
	require.NoError(b, <-ran)
}
