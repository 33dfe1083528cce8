package envelope_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/race"
)

// worstSize is the approximate length of the messages of worstEnvelopes.
const worstSize = 512 << 10

// repeated returns unit, as often as it fits, between open and end, without the last comma.
func repeated(unit, open, end string) []byte {
	n := (worstSize - len(open) - len(end)) / len(unit)
	return []byte(open + strings.TrimSuffix(strings.Repeat(unit, n), ",") + end)
}

// worstEnvelopes returns the messages that cost the most for their length. The message plain
// is for comparison.
func worstEnvelopes() map[string][]byte {
	return map[string][]byte{
		"plain":               repeated("x", `{"data":"`, `"}`),
		"keys":                repeated(`"a":0,`, `{`, `}`),
		"escaped keys":        repeated(`"\n":0,`, `{`, `}`),
		"escaped u keys":      repeated(`"\u0061":0,`, `{`, `}`),
		"escaped known keys":  repeated(`"\u0064ata":0,`, `{`, `}`),
		"long escaped key":    repeated(`\n`, `{"`, `":1}`),
		"escaped events":      repeated(`"event":"\n",`, `{`, `}`),
		"events not UTF-8":    repeated("\"event\":\"\xff\",", `{`, `}`),
		"long event":          repeated(`\n`, `{"event":"`, `"}`),
		"long event u":        repeated(`\u0061`, `{"event":"`, `"}`),
		"long event no UTF-8": repeated("\xff", `{"event":"`, `"}`),
		"long request_id":     repeated(`\u0001`, `{"request_id":"`, `"}`),
		"keys in data":        repeated(`"a":0,`, `{"data":{`, `}}`),
		"objects":             repeated(`{},`, `{"data":[`, `]}`),
		"arrays":              repeated(`[],`, `{"data":[`, `]}`),
		"digits":              repeated(`1,`, `{"data":[`, `]}`),
		"empty strings":       repeated(`"",`, `{"data":[`, `]}`),
		"deep":                repeated(nested("[", "]", 120)+",", `{"data":[`, `]}`),
		"too deep":            repeated("[", `{"data":`, ""),
		"escapes":             repeated(`\n`, `{"data":"`, `"}`),
		"u escapes":           repeated(`\u0061`, `{"data":"`, `"}`),
		"long number":         repeated(`1`, `{"data":`, `}`),
		"long timestamp":      repeated(`1`, `{"timestamp":`, `}`),
		"timestamps":          repeated(`"timestamp":1,`, `{`, `}`),
		"spaces":              repeated(` `, `{"data":`, `1}`),
	}
}

// No message makes Parse allocate for each part.
func TestParseAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	for name, in := range worstEnvelopes() {
		n := testing.AllocsPerRun(1, func() {
			var e envelope.Request
			_ = envelope.Parse(in, &e)
		})
		assert.LessOrEqual(t, n, 16.0, name)
	}
}

// Parse decodes the same values as encoding/json.
func TestParseWorst(t *testing.T) {
	for name, in := range worstEnvelopes() {
		t.Run(name, func(t *testing.T) { checkEnvelope(t, in) })
	}
}

func TestParseLimits(t *testing.T) {
	id := func(unit string, n int) []byte {
		return []byte(`{"request_id":"` + strings.Repeat(unit, n) + `"}`)
	}
	tests := []struct {
		name string
		in   []byte
		want error // nil if it is valid
	}{
		{"longest request_id", id("a", envelope.MaxRequestID), nil},
		{"request_id too long", id("a", envelope.MaxRequestID+1), envelope.ErrRequestID},
		{"longest escaped request_id", id(`\u0001`, envelope.MaxRequestID), nil},
		{"escaped request_id too long", id(`\n`, envelope.MaxRequestID+1), envelope.ErrRequestID},
		{"runes count in bytes", id(`\u00e9`, envelope.MaxRequestID/2+1), envelope.ErrRequestID},
		{"the last of two counts", []byte(`{"request_id":"` + strings.Repeat("a", 5000) + `","request_id":"b"}`), nil},
		{"deepest", []byte(`{"a":` + nested("[", "]", envelope.MaxDepth-1) + `}`), nil},
		{"too deep", []byte(`{"a":` + nested("[", "]", envelope.MaxDepth) + `}`), envelope.ErrDepth},
		{"objects too deep", []byte(`{"data":` + nested(`{"a":`, `}`, envelope.MaxDepth) + `}`), envelope.ErrDepth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e envelope.Request
			err := envelope.Parse(tt.in, &e)
			assert.ErrorIs(t, err, tt.want)
			if tt.want != nil {
				assert.ErrorIs(t, err, envelope.ErrInvalid)
				assert.Empty(t, e.RequestID)
				assert.Less(t, len(err.Error()), 100)
			}
			checkEnvelope(t, tt.in)
		})
	}
}

func BenchmarkParseWorst(b *testing.B) {
	for name, in := range worstEnvelopes() {
		b.Run(strings.ReplaceAll("input="+name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			var e envelope.Request
			for b.Loop() {
				_ = envelope.Parse(in, &e)
			}
		})
	}
}
