//nolint:lll // a case of a table is one line
package schema_test

import (
	"bytes"
	"reflect"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

// API has the name of the interface that TypeScript writes.
type API struct{ A int }

func local() (a, b any) {
	type Item struct{ A int }
	return Page[Item]{}, Item{}
}

func other() any {
	type Item struct{ B int }
	return Item{}
}

// TestNames asserts the names of types: of generic types, of several with one name, and of one that
// the output has for itself.
func TestNames(t *testing.T) {
	page, item := local()
	var s ws.Schema
	for _, v := range []any{
		Message{},
		ws.Message{},
		API{},
		page, item, other(),
		Pair[int, []*Page[Base]]{},
		Pair[string, map[string]any]{},
		Pair[Color, struct{ A int }]{},
	} {
		s.Events = append(s.Events, ws.EventInfo{Event: "e", Data: reflect.TypeOf(v)})
	}
	var buf bytes.Buffer
	require.NoError(t, schema.TypeScript(&buf, s))
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^export (?:interface|type) (\S+)`).FindAllStringSubmatch(buf.String(), -1) {
		names = append(names, match[1])
	}
	assert.Equal(t, []string{
		"API", "Base", "Color", "PageOfBase", "PageOfItem", "PairOfColorAndStruct", "PairOfIntAndPageOfBaseList",
		"PairOfStringAndMapOfStringToAny", "SchemaTestAPI", "SchemaTestItem", "SchemaTestItem2", "SchemaTestMessage", "WsMessage",
	}, names)
}
