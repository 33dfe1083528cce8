//nolint:lll // a case of a table is one line
package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

// document is an AsyncAPI document with the means to check values against it.
type document map[string]any

func asyncAPI(t *testing.T, s ws.Schema, opts ...schema.Option) document {
	var buf bytes.Buffer
	require.NoError(t, schema.AsyncAPI(&buf, s, opts...))
	var doc document
	require.NoError(t, json.Unmarshal(buf.Bytes(), &doc))
	return doc
}

// at returns the value at a path, such as "#/components/schemas/A".
func (d document) at(path string) any {
	var v any = map[string]any(d)
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "#/"), "/") {
		members, _ := v.(map[string]any)
		v = members[name]
	}
	return v
}

// valid reports whether v is valid against a schema, by the keywords that AsyncAPI writes.
func (d document) valid(schema map[string]any, v any) bool {
	for keyword, rule := range schema {
		if !d.holds(schema, keyword, rule, v) {
			return false
		}
	}
	return true
}

//nolint:gocyclo // one case for each keyword
func (d document) holds(schema map[string]any, keyword string, rule, v any) bool {
	list, isList := v.([]any)
	members, isObject := v.(map[string]any)
	sub := func(rule any) map[string]any { return rule.(map[string]any) }
	switch keyword {
	case "$ref":
		target, ok := d.at(rule.(string)).(map[string]any)
		return ok && d.valid(target, v)
	case "type":
		kinds, ok := rule.([]any)
		if !ok {
			kinds = []any{rule}
		}
		return slices.ContainsFunc(kinds, func(kind any) bool { return isOfType(kind.(string), v) })
	case "const":
		return reflect.DeepEqual(rule, v)
	case "enum":
		return slices.ContainsFunc(rule.([]any), func(value any) bool { return reflect.DeepEqual(value, v) })
	case "anyOf":
		return slices.ContainsFunc(rule.([]any), func(s any) bool { return d.valid(sub(s), v) })
	case "allOf":
		return !slices.ContainsFunc(rule.([]any), func(s any) bool { return !d.valid(sub(s), v) })
	case "items":
		return !isList || !slices.ContainsFunc(list, func(elem any) bool { return !d.valid(sub(rule), elem) })
	case "minItems":
		return !isList || float64(len(list)) >= rule.(float64)
	case "maxItems":
		return !isList || float64(len(list)) <= rule.(float64)
	case "minimum":
		n, isNumber := v.(float64)
		return !isNumber || n >= rule.(float64)
	case "required":
		return !isObject || !slices.ContainsFunc(rule.([]any), func(name any) bool { _, ok := members[name.(string)]; return !ok })
	case "properties":
		for name, s := range sub(rule) {
			if member, ok := members[name]; ok && !d.valid(sub(s), member) {
				return false
			}
		}
		return true
	case "additionalProperties":
		for _, member := range members {
			if !d.valid(sub(rule), member) {
				return false
			}
		}
		return true
	case "propertyNames":
		for name := range members {
			if pattern, ok := sub(rule)["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(name) || !ok && !d.valid(sub(rule), name) {
				return false
			}
		}
		return true
	case "description", "contentEncoding", "format":
		return true
	}
	panic("unknown keyword " + keyword)
}

func isOfType(kind string, v any) bool {
	switch v := v.(type) {
	case nil:
		return kind == "null"
	case bool:
		return kind == "boolean"
	case string:
		return kind == "string"
	case float64:
		return kind == "number" || kind == "integer" && v == float64(int64(v)) || kind == "integer" && (v > 1e18 || v < -1e18)
	case []any:
		return kind == "array"
	}
	return kind == "object"
}

// TestAsyncAPIOfTraps checks the JSON of all traps against the schemas of the document.
func TestAsyncAPIOfTraps(t *testing.T) {
	var s ws.Schema
	for i, tt := range allTraps() {
		s.Events = append(s.Events, ws.EventInfo{Event: fmt.Sprintf("e%d", i), Data: reflect.TypeOf(tt.values[0])})
	}
	doc := asyncAPI(t, s, append(declared(), schema.WithSource("."))...)
	for i, tt := range allTraps() {
		data := doc.at(fmt.Sprintf("#/components/messages/e%d.event/payload/properties/data", i))
		for _, v := range tt.values {
			text, err := json.Marshal(v)
			require.NoError(t, err)
			if string(text) == "1e400" || string(text) == "[1e400]" {
				continue // beyond the numbers of this checker
			}
			var decoded any
			require.NoError(t, json.Unmarshal(text, &decoded))
			assert.True(t, doc.valid(data.(map[string]any), decoded), "%s: %s is not valid against %v", tt.name, text, data)
		}
	}
}

// TestAsyncAPIDocument asserts the parts of a document that the specification requires, that
// each reference has a target, and that messages of the wire are valid.
func TestAsyncAPIDocument(t *testing.T) {
	doc := asyncAPI(t, ws.Describe(newShop(t)), schema.WithSource("."), schema.Title("Shop", "2.1.0"))
	assert.Equal(t, "3.0.0", doc["asyncapi"])
	assert.Equal(t, map[string]any{"title": "Shop", "version": "2.1.0"}, doc["info"])
	eachReference(map[string]any(doc), func(ref string) { assert.NotNil(t, doc.at(ref), ref) })
	require.Len(t, doc["operations"], 6)
	for key, operation := range doc["operations"].(map[string]any) {
		o := operation.(map[string]any)
		action, _, _ := strings.Cut(key, ".")
		assert.Equal(t, action, o["action"])
		assert.Equal(t, action == "receive", o["reply"] != nil, key)
		assert.Equal(t, map[string]any{"$ref": "#/channels/websocket"}, o["channel"])
	}
	payload := func(message string) map[string]any {
		return doc.at("#/components/messages/" + message + "/payload").(map[string]any)
	}
	for _, tt := range []struct {
		message, text string
		want          bool
	}{
		{"shop.order.request", `{"type":"request","event":"shop.order","request_id":"1","data":{"item":"tea","count":1,"state":"open"}}`, true},
		{"shop.order.request", `{"type":"request","event":"shop.order","request_id":"1","data":{"item":"tea","count":1,"state":"lost"}}`, false},
		{"shop.order.request", `{"type":"request","event":"shop.order","request_id":"1"}`, false},
		{"shop.order.response", `{"type":"response","request_id":"1","code":200,"message":"success","data":{"id":"7"},"trace_id":"a","timestamp":1}`, true},
		{"shop.cancel.response", `{"type":"response","request_id":"1","code":200,"message":"success","trace_id":"a","timestamp":1}`, true},
		{"shop.sold.event", `{"type":"notify","event":"shop.sold","room":"r","offset":7,"data":{"item":"tea","by":null},"timestamp":1}`, true},
		{"shop.sold.event", `{"type":"notify","event":"shop.sold","data":{"item":"tea"}}`, false},
		{"error", `{"type":"error","request_id":"1","code":4290,"message":"slow","trace_id":"a","timestamp":1}`, true},
	} {
		var v any
		require.NoError(t, json.Unmarshal([]byte(tt.text), &v))
		assert.Equal(t, tt.want, doc.valid(payload(tt.message), v), tt.text)
	}
}

func eachReference(v any, fn func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			if ref, ok := member.(string); ok && key == "$ref" {
				fn(ref)
			}
			eachReference(member, fn)
		}
	case []any:
		for _, elem := range v {
			eachReference(elem, fn)
		}
	}
}
