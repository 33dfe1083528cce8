package envelope

import (
	"encoding/json"
	"strconv"
	"time"
)

// Reply is a response or an error. Not safe for concurrent use.
type Reply struct {
	Type      string
	RequestID string
	Code      int
	Message   string
	Data      []byte // JSON, or nil
	TraceID   TraceID
}

// Append appends r to b as JSON, with the time, without reflection. Its strings are escaped as
// encoding/json does it, which includes <, > and & for text that ends up in HTML.
func (r *Reply) Append(b []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, r.Type...)
	if r.RequestID != "" {
		b = append(b, `","request_id":`...)
		b = appendString(b, r.RequestID)
		b = append(b, `,"code":`...)
	} else {
		b = append(b, `","code":`...)
	}
	b = strconv.AppendInt(b, int64(r.Code), 10)
	b = append(b, `,"message":`...)
	b = appendString(b, r.Message)
	if len(r.Data) > 0 {
		b = append(b, `,"data":`...)
		b = append(b, r.Data...)
	}
	b = append(b, `,"trace_id":"`...)
	b = r.TraceID.Append(b)
	b = append(b, `","timestamp":`...)
	b = strconv.AppendInt(b, time.Now().Unix(), 10)
	return append(b, '}')
}

// TraceID is the trace_id of a reply: 64 bits of the library's own, or the 128 bits of a trace
// (W3C Trace Context, section 3.2.2.3). Immutable.
type TraceID struct {
	High, Low uint64
	Long      bool // the ID has 128 bits
}

// Append appends the ID as 16 hexadecimal digits, or 32 if it is long.
func (id TraceID) Append(b []byte) []byte {
	if id.Long {
		b = appendHex(b, id.High)
	}
	return appendHex(b, id.Low)
}

func appendHex(b []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&0xf])
	}
	return b
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= 0x80 {
			quoted, err := json.Marshal(s) // never fails for a string
			if err != nil {
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
