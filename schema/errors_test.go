//nolint:lll // a case of a table is one line
package schema_test

import (
	"bytes"
	"math/big"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

type (
	promoted struct {
		time.Time
		Text string
	}
	decodesOnly struct{ A int }
	textOnly    int
	loop        *loop
	holder      struct{ Price Money }
	pointed     struct{ P PointerMoney }
)

func (d *decodesOnly) UnmarshalJSON([]byte) error { return nil }
func (t *textOnly) UnmarshalText([]byte) error    { return nil }

// TestErrors asserts that a type without a known JSON is an error, which names the type and
// its place.
func TestErrors(t *testing.T) {
	const unknown = ", so its JSON is unknown: declare it with schema.As["
	for _, tt := range []struct {
		name  string
		value any
		want  string
	}{
		{"MarshalJSON", []Money{}, "schema_test.Money has the method MarshalJSON" + unknown + "schema_test.Money]"},
		{"in a field", struct{ M map[string]holder }{}, "field Price of schema_test.holder: schema_test.Money has the method MarshalJSON"},
		{"pointer receiver", &PointerMoney{}, "schema_test.PointerMoney has the method MarshalJSON"},
		{"promoted by an embedded struct", promoted{}, "schema_test.promoted has the method MarshalJSON"},
		{"UnmarshalJSON", decodesOnly{}, "schema_test.decodesOnly has the method UnmarshalJSON"},
		{"UnmarshalText", textOnly(0), "schema_test.textOnly has the method UnmarshalText, but not MarshalText"},
		{"channel", struct{ C chan int }{}, "field C of struct { C chan int }: chan int has no JSON"},
		{"function", struct {
			F func() `json:",omitempty"`
		}{}, "func() has no JSON"},
		{"complex", []complex128{}, "complex128 has no JSON"},
		{"unsafe.Pointer", unsafe.Pointer(nil), "unsafe.Pointer has no JSON"},
		{"keys", map[[2]int]int{}, "map[[2]int]int: JSON has no keys of this type"},
		{"bool keys", map[bool]int{}, "map[bool]int: JSON has no keys of this type"},
		{"pointer to itself", loop(nil), "schema_test.loop is a pointer to itself"},
		{"value of a map", map[string]PointerGrade{}, "values of map[string]schema_test.PointerGrade: encoding/json does not call"},
		{"value that is not addressable", big.Int{}, "encoding/json does not call the method of *big.Int here"},
		{"array of such values", [2]PointerGrade{}, "encoding/json does not call the method of *schema_test.PointerGrade here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := ws.Schema{Events: []ws.EventInfo{{Event: "some.event", Data: reflect.TypeOf(tt.value)}}}
			for _, write := range writers {
				var buf bytes.Buffer
				err := write(&buf, s)
				require.ErrorContains(t, err, tt.want)
				assert.ErrorContains(t, err, `schema: event "some.event": `)
				assert.Empty(t, buf.String(), "nothing is written")
			}
		})
	}
}

// A declared type is still an error where encoding/json does not call its method.
func TestDeclaredButNotCalled(t *testing.T) {
	s := ws.Schema{Events: []ws.EventInfo{{Event: "e", Data: reflect.TypeFor[pointed]()}}}
	err := schema.TypeScript(new(bytes.Buffer), s, declared()...)
	assert.ErrorContains(t, err, "field P of schema_test.pointed: encoding/json does not call the method of *schema_test.PointerMoney")

	s = ws.Schema{Handlers: []ws.HandlerInfo{{Event: "e", Request: reflect.TypeFor[pointed]()}}}
	assert.NoError(t, schema.TypeScript(new(bytes.Buffer), s, declared()...), "handlers answer with a pointer")
}

func TestErrorsOfOptions(t *testing.T) {
	for want, opt := range map[string]schema.Option{
		`schema: WithSource("/"): no go.mod in it or above it`:       schema.WithSource("/"),
		`schema: As[int](""): it must be one line of TypeScript`:     schema.As[int](""),
		`schema: As[int]("a\nb"): it must be one line of TypeScript`: schema.As[int]("a\nb"),
		`schema: Package: not a name of a Go package: no-name`:       schema.Package("no-name"),
		`schema: Package: not a name of a Go package: func`:          schema.Package("func"),
	} {
		for _, write := range writers {
			assert.EqualError(t, write(new(bytes.Buffer), ws.Schema{}, opt), want)
		}
	}
}
