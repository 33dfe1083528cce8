package envelope_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/race"
)

// fields is a Request that prints and compares well.
type fields struct {
	Type, Event, RequestID, Data string
	Timestamp                    int64
	Idempotent                   bool
}

func fieldsOf(e *envelope.Request) fields {
	return fields{string(e.Type), string(e.Event), string(e.RequestID), string(e.Data), e.Timestamp, e.Idempotent}
}

// structEnvelope decodes an envelope with encoding/json, in place of Parse.
type structEnvelope struct {
	Type       string          `json:"type"`
	Event      string          `json:"event"`
	RequestID  string          `json:"request_id"`
	Data       json.RawMessage `json:"data"`
	Timestamp  int64           `json:"timestamp"`
	Idempotent bool            `json:"idempotent"`
}

// reference reads b by the rules of Parse, slowly: encoding/json for every value.
// exact is false if one of the documented differences keeps b from being compared with
// json.Unmarshal into a struct.
func reference(b []byte) (f fields, exact, ok bool) {
	exact = true
	if depthOf(b) > envelope.MaxDepth {
		return f, false, false
	}
	if !json.Valid(b) || bytes.TrimLeft(b, " \t\r\n")[0] != '{' {
		return f, string(bytes.Trim(b, " \t\r\n")) != "null", false
	}
	ok = true
	known := []string{"type", "event", "request_id", "data", "timestamp", "idempotent"}
	seen := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(b))
	_, _ = dec.Token()
	for dec.More() {
		token, _ := dec.Token()
		key := token.(string)
		var raw json.RawMessage
		_ = dec.Decode(&raw)
		for _, k := range known {
			exact = exact && (key == k || !strings.EqualFold(key, k)) && !seen[key]
		}
		seen[key] = true
		ok = f.set(key, raw) && ok
	}
	if len(f.RequestID) > envelope.MaxRequestID {
		return f, false, false
	}
	return f, exact, ok
}

// set decodes raw into the field of key and reports whether it has the field's type.
func (f *fields) set(key string, raw json.RawMessage) bool {
	texts := map[string]*string{"type": &f.Type, "event": &f.Event, "request_id": &f.RequestID}
	if text := texts[key]; text != nil {
		*text = ""
		return json.Unmarshal(raw, text) == nil
	}
	switch key {
	case "timestamp":
		f.Timestamp = 0
		return json.Unmarshal(raw, &f.Timestamp) == nil
	case "idempotent":
		f.Idempotent = false
		return json.Unmarshal(raw, &f.Idempotent) == nil
	case "data":
		f.Data = strings.TrimPrefix(string(raw), "null")
	}
	return true
}

// depthOf returns the depth of b, as far as b is JSON.
func depthOf(b []byte) int {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// checkEnvelope compares Parse with the reference and with json.Unmarshal.
func checkEnvelope(t *testing.T, b []byte) {
	t.Helper()
	before := bytes.Clone(b)
	var e envelope.Request
	err := envelope.Parse(b, &e)
	require.Equal(t, before, b, "input changed")
	if err != nil {
		require.ErrorIs(t, err, envelope.ErrInvalid)
	}

	want, exact, ok := reference(b)
	require.Equal(t, ok, err == nil, "input %q: reference accepts %v, Parse says %v", b, ok, err)
	if ok {
		require.Equal(t, want, fieldsOf(&e), "input %q", b)
	}
	if !exact {
		return
	}
	var s structEnvelope
	stdErr := json.Unmarshal(b, &s)
	require.Equal(t, stdErr == nil, err == nil, "input %q: encoding/json says %v, Parse %v", b, stdErr, err)
	if err == nil {
		if string(s.Data) == "null" {
			s.Data = nil
		}
		want := fields{s.Type, s.Event, s.RequestID, string(s.Data), s.Timestamp, s.Idempotent}
		require.Equal(t, want, fieldsOf(&e), "input %q", b)
	}
}

var request = []byte(`{"type":"request","event":"chat.send","request_id":"req_1",` +
	`"data":{"room":"lobby","text":"hello, world"},"timestamp":1707552000}`)

func nested(open, end string, n int) string {
	return strings.Repeat(open, n) + strings.Repeat(end, n)
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     fields
	}{
		{
			"all fields", string(request),
			fields{"request", "chat.send", "req_1", `{"room":"lobby","text":"hello, world"}`, 1707552000, false},
		},
		{"empty object", `{}`, fields{}},
		{
			"space everywhere", " \t\r\n{ \n\"event\" : \"a\" , \"data\" :\t[ 1 , 2 ]\r} \n",
			fields{Event: "a", Data: "[ 1 , 2 ]"},
		},
		{
			"escapes", `{"event":"a\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00","data":"\u0041"}`,
			fields{Event: "a\"\\/\b\f\n\r\tAé😀", Data: `"\u0041"`},
		},
		{
			"lone surrogates", `{"type":"\ud83dx","event":"\ude00","request_id":"\ud83d\ud83d\ude00"}`,
			fields{Type: "\uFFFDx", Event: "\uFFFD", RequestID: "\uFFFD😀"},
		},
		{"invalid UTF-8", "{\"event\":\"a\xffb\",\"data\":\"\xff\"}", fields{Event: "a\uFFFDb", Data: "\"\xff\""}},
		{"escaped key", `{"\u0065vent":"a"}`, fields{Event: "a"}},
		{"last of two", `{"event":"a","event":"b","data":1,"data":null}`, fields{Event: "b"}},
		{"keys match exactly", `{"Event":"a","EVENT":1,"type":"b"}`, fields{Type: "b"}},
		{
			"null fields",
			`{"type":null,"event":null,"request_id":null,"data":null,"timestamp":null,"idempotent":null}`,
			fields{},
		},
		{"idempotent", `{"event":"a","idempotent":true}`, fields{Event: "a", Idempotent: true}},
		{"not idempotent", `{"idempotent" : false , "event":"a"}`, fields{Event: "a"}},
		{"the last idempotent", `{"idempotent":true,"idempotent":null}`, fields{}},
		{"idempotent in the data", `{"data":{"idempotent":true}}`, fields{Data: `{"idempotent":true}`}},
		{"unknown keys", `{"a":{"event":"x"},"b":[true,false,null,-1.5e+3],"event":"y","c":"\n"}`, fields{Event: "y"}},
		{"smallest timestamp", `{"timestamp":-9223372036854775808}`, fields{Timestamp: -1 << 63}},
		{"deepest", `{"data":` + nested("[", "]", 127) + `}`, fields{Data: nested("[", "]", 127)}},
		{
			"string lengths", `{"type":"1234567","event":"12345678","request_id":"123456789"}`,
			fields{Type: "1234567", Event: "12345678", RequestID: "123456789"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e envelope.Request
			require.NoError(t, envelope.Parse([]byte(tt.in), &e))
			assert.Equal(t, tt.want, fieldsOf(&e))
			checkEnvelope(t, []byte(tt.in))
		})
	}
}

var invalidEnvelopes = []string{
	``, ` `, `null`, `true`, `1`, `"a"`, `[]`, `{`, `}`, `{}}`, `{}{}`, `{} x`, "{}\x00", "\xef\xbb\xbf{}",
	`{,}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{1:1}`, `{"a"=1}`, `{"a",1}`,
	`{"a":[}`, `{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":{]}`, `{"a":{"b"}}`, `{"a":{"b":1,}}`,
	`{"a":tru}`, `{"a":truee}`, `{"a":nul`, `{"a":falsy}`, `{"a":NaN}`, `{"a":undefined}`, `{"type":nil}`,
	`{"a":01}`, `{"a":-}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1.e1}`,
	`{"a":0x1}`, `{"a":-01}`,
	`{"a":"`, `{"a":"b`, `{"a":"\`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\u`, `{"a":"\U0041"}`,
	"{\"a\":\"\n\"}", "{\"a\":\"1234567\x00\"}", "{\"a\":\"\x1f234567890\"}", "{\"a\x01\":1}",
	`{"type":1}`, `{"event":true}`, `{"request_id":{}}`, `{"event":[]}`, `{"event":1,"event":"a"}`,
	`{"timestamp":"1"}`, `{"timestamp":1.5}`, `{"timestamp":1.0}`, `{"timestamp":1e3}`, `{"timestamp":true}`,
	`{"timestamp":{}}`,
	`{"timestamp":9223372036854775808}`, `{"timestamp":-9223372036854775809}`, `{"timestamp":}`,
	`{"idempotent":1}`, `{"idempotent":"true"}`, `{"idempotent":[]}`, `{"idempotent":}`, `{"idempotent":tru}`,
	`{"idempotent":trues}`, `{"idempotent":fals}`, `{"idempotent":nul}`, `{"idempotent":TRUE}`,
	`{"data":}`, `{"data":{"a":}}`, `{"data":1 2}`, `{"data":nulll}`, `{} /* comment */`,
	`{"data":` + nested("[", "]", 128) + `}`, `{"a":` + nested(`{"a":`, `}`, 128) + `}`,
}

func TestParseRejects(t *testing.T) {
	for _, in := range invalidEnvelopes {
		t.Run(fmt.Sprintf("%.40q", in), func(t *testing.T) {
			var e envelope.Request
			require.ErrorIs(t, envelope.Parse([]byte(in), &e), envelope.ErrInvalid)
			checkEnvelope(t, []byte(in))
		})
	}
}

func TestParseNamesTheFault(t *testing.T) {
	var e envelope.Request
	err := envelope.Parse([]byte(`{"event":"a","timestamp":1.5}`), &e)
	require.EqualError(t, err, "envelope: invalid: timestamp must be a 64-bit integer at byte 28")
	assert.Equal(t, "a", string(e.Event), "fields before the error stay")
}

// Parse finds the request_id of an invalid envelope in any place. In a valid envelope an ID
// within the data has no effect.
func TestParseFindsTheRequestID(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"before the error", `{"request_id":"a","event":7}`, "a"},
		{"behind the error", `{"event":7,"request_id":"a"}`, "a"},
		{"a number", `{"event":"e","request_id":17}`, "17"},
		{"another number", `{"request_id":-1.5e3,"event":"e"}`, "-1.5e3"},
		{"behind a broken value", `{"data":{"a":tru,"b":[1,]},"request_id":"a"}`, "a"},
		{"behind values that nest too deep", `{"data":` + nested("[", "]", 5000) + `,"request_id":"a"}`, "a"},
		{"behind a line break in a string", "{\"data\":\"x\ny\",\"request_id\":\"a\"}", "a"},
		{"behind bytes that are no JSON", "\xef\xbb\xbf{'a':1, \"request_id\" : \"a\"}", "a"},
		{"escapes", `{"event":7,"data":"\"}","request_id":"\u0061\n"}`, "a\n"},
		{"of an envelope that is cut short", `{"type":"request","request_id":"a","data":{"te`, "a"},
		{"longest", `{"event":7,"request_id":"` + strings.Repeat("i", 256) + `"}`, strings.Repeat("i", 256)},
		{"too long", `{"event":7,"request_id":"` + strings.Repeat("i", 257) + `"}`, ""},
		{"too long a number", `{"request_id":` + strings.Repeat("1", 257) + `}`, ""},
		{"cut short itself", `{"event":7,"request_id":"a`, ""},
		{"an object", `{"request_id":{"request_id":"b"}}`, ""},
		{"null", `{"request_id":null,"event":7}`, ""},
		{"in the data", `{"event":7,"data":{"request_id":"b"}}`, ""},
		{"a value", `{"event":7,"data":"request_id"}`, ""},
		{"in an array", `[{"request_id":"b"}]`, ""},
		{"without a value", `{"request_id"`, ""},
		{"half an escape", `{"event":7,"\`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e envelope.Request
			require.ErrorIs(t, envelope.Parse([]byte(tt.in), &e), envelope.ErrInvalid)
			assert.Equal(t, tt.want, string(e.RequestID))
		})
	}
}

// Parse refuses every prefix of a message. It refuses the message with one changed byte if and
// only if the reference refuses it.
func TestParseTruncatedAndCorrupted(t *testing.T) {
	for n := range request {
		var e envelope.Request
		require.ErrorIs(t, envelope.Parse(request[:n], &e), envelope.ErrInvalid, "prefix of %d", n)
	}
	for i := range request {
		for _, c := range []byte("\x00\x1f \"\\{}[]:,0-eE.nx\x80\xff") {
			b := bytes.Clone(request)
			b[i] = c
			checkEnvelope(t, b)
		}
	}
}

// Appending to a field must not write into the input behind it.
func TestParseFieldsAreClipped(t *testing.T) {
	b := bytes.Clone(request)
	var e envelope.Request
	require.NoError(t, envelope.Parse(b, &e))
	for _, field := range [][]byte{e.Type, e.Event, e.RequestID, e.Data} {
		_ = append(field, "XXXX"...)
	}
	assert.Equal(t, request, b)
}

func TestParseResets(t *testing.T) {
	var e envelope.Request
	require.NoError(t, envelope.Parse(request, &e))
	require.NoError(t, envelope.Parse([]byte(`{}`), &e))
	assert.Equal(t, fields{}, fieldsOf(&e))
}

func TestParseDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	var e envelope.Request
	n := testing.AllocsPerRun(100, func() {
		if envelope.Parse(request, &e) != nil {
			t.Fatal("refused")
		}
	})
	assert.Zero(t, n)
}

func FuzzParse(f *testing.F) {
	f.Add(request)
	f.Add([]byte(`{"\u0065vent":"\ud83d\ude00\ud83d","data":[{"a":-0.1e-5},null,true],"timestamp":-0}`))
	f.Add([]byte(`{"idempotent":true,"request_id":"r","event":"a"}`))
	f.Add([]byte(`{"idempotent":false,"Idempotent":1,"idempotent":null}`))
	f.Add([]byte("{\"event\":\"\xff\xc3\xa9\",\"data\":null,\"data\":false,\"Type\":1,\"timestamp\":null}"))
	for _, in := range invalidEnvelopes {
		f.Add([]byte(in))
	}
	f.Fuzz(checkEnvelope)
}

func BenchmarkParse(b *testing.B) {
	large := bytes.Replace(request, []byte("hello, world"), bytes.Repeat([]byte("hello, world"), 340), 1)
	for _, in := range [][]byte{request, large} {
		b.Run(fmt.Sprintf("impl=scanner/bytes=%d", len(in)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			var e envelope.Request
			for b.Loop() {
				if err := envelope.Parse(in, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("impl=encoding-json/bytes=%d", len(in)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				var e structEnvelope
				if err := json.Unmarshal(in, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("invalid", func(b *testing.B) {
		b.ReportAllocs()
		var e envelope.Request
		for b.Loop() {
			if err := envelope.Parse(request[:len(request)-1], &e); !errors.Is(err, envelope.ErrInvalid) {
				b.Fatal(err)
			}
		}
	})
}
