package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

// leaves are the types at the ends of random types.
var leaves = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int64](), reflect.TypeFor[uint8](),
	reflect.TypeFor[float32](), reflect.TypeFor[string](), reflect.TypeFor[[]byte](), reflect.TypeFor[any](),
	reflect.TypeFor[time.Time](), reflect.TypeFor[time.Duration](), reflect.TypeFor[Grade](), reflect.TypeFor[Base](),
	reflect.TypeFor[Tree](), reflect.TypeFor[List](), reflect.TypeFor[UserID](), reflect.TypeFor[Page[*Base]](),
	reflect.TypeFor[*PointerMoney](), reflect.TypeFor[Zeroer](), reflect.TypeFor[json.RawMessage](),
}

// keys are the types of the keys of random maps.
var keys = []reflect.Type{
	reflect.TypeFor[string](), reflect.TypeFor[int](), reflect.TypeFor[Grade](), reflect.TypeFor[UserID](),
}

// embeddable are structs whose fields have names that random fields have, too.
var embeddable = []reflect.Type{
	reflect.TypeFor[Base](), reflect.TypeFor[Other](), reflect.TypeFor[*Base](), reflect.TypeFor[*Other](),
}

// randomType returns a type, which depends on seed alone, and values of it, the zero value first.
func randomType(seed uint64) (reflect.Type, []any) {
	r := rand.New(rand.NewPCG(seed, 0))
	t := randomStruct(r, 2)
	values := []any{reflect.Zero(t).Interface()}
	for range 3 {
		v := reflect.New(t).Elem()
		fill(r, v, 4)
		values = append(values, v.Interface())
	}
	return t, values
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomStruct(r *rand.Rand, depth int) reflect.Type {
	var fields []reflect.StructField
	for i := range r.IntN(6) {
		f := reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: random(r, depth-1)}
		tag := pick(r, []string{"", "", "name", "F0", "F1", "-", "a b", "ID"})
		tag += pick(r, []string{"", "", ",omitempty", ",omitzero", ",string", ",omitempty,string", ",omitzero,omitempty"})
		if tag != "" {
			f.Tag = reflect.StructTag(`json:"` + tag + `"`)
		}
		fields = append(fields, f)
	}
	for _, e := range embeddable {
		name := strings.TrimPrefix(e.String(), "*")
		name = name[strings.IndexByte(name, '.')+1:]
		taken := func() bool {
			for _, f := range fields {
				if f.Name == name {
					return true
				}
			}
			return false
		}
		if r.IntN(5) == 0 && !taken() {
			fields = append(fields, reflect.StructField{Name: name, Type: e, Anonymous: true})
		}
	}
	return reflect.StructOf(fields)
}

func random(r *rand.Rand, depth int) reflect.Type {
	if depth <= 0 || r.IntN(3) == 0 {
		return pick(r, leaves)
	}
	switch r.IntN(5) {
	case 0:
		return reflect.PointerTo(random(r, depth-1))
	case 1:
		return reflect.SliceOf(random(r, depth-1))
	case 2:
		return reflect.ArrayOf(r.IntN(11), random(r, depth-1))
	case 3:
		return reflect.MapOf(pick(r, keys), random(r, depth-1))
	default:
		return randomStruct(r, depth)
	}
}

// fill sets v to a random value that has JSON.
//
//nolint:gocyclo // one case for each kind
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC()))
		return
	case Grade:
		v.SetInt(r.Int64N(3))
		return
	case json.RawMessage:
		v.Set(reflect.ValueOf(json.RawMessage(pick(r, []string{`null`, `1`, `{"a":[true]}`}))))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64) * int64(1-2*r.IntN(2)))
	case reflect.Uint8:
		v.SetUint(r.Uint64N(256))
	case reflect.Float32:
		v.SetFloat(float64(r.Float32()) * 1e6)
	case reflect.String:
		v.SetString(pick(r, []string{"", "a", "\"\\</script>\u2028é", "\x00\xff"}))
	case reflect.Interface:
		v.Set(reflect.ValueOf(pick(r, []any{1, "a", []int(nil), map[string]any{"a": nil}, false})))
	case reflect.Pointer:
		if depth > 0 && r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth-1)
		}
	case reflect.Array, reflect.Struct:
		for i := range size(v) {
			fill(r, element(v, i), depth-1)
		}
	case reflect.Slice:
		if depth > 0 && r.IntN(3) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
			for i := range v.Len() {
				fill(r, v.Index(i), depth-1)
			}
		}
	case reflect.Map:
		if depth > 0 && r.IntN(3) > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range r.IntN(3) {
				key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(r, key, 0)
				fill(r, elem, depth-1)
				v.SetMapIndex(key, elem)
			}
		}
	}
}

func size(v reflect.Value) int {
	if v.Kind() == reflect.Struct {
		return v.NumField()
	}
	return v.Len()
}

func element(v reflect.Value, i int) reflect.Value {
	if v.Kind() == reflect.Struct {
		return v.Field(i)
	}
	return v.Index(i)
}

// FuzzTypes asserts for random types that the JSON of random values is of the type which was
// found, and that the type is not wider than necessary for the zero value.
func FuzzTypes(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		typ, values := randomType(seed)
		for i, v := range values {
			data, err := json.Marshal(v)
			require.NoError(t, err)
			require.NoError(t, schema.Check(typ, data, declared()...), "%v\n%s", typ, data)
			if i == 0 {
				require.NoError(t, schema.CheckZero(typ, data, declared()...), "%v\n%s", typ, data)
			}
		}
		s := ws.Schema{Events: []ws.EventInfo{{Event: "e", Data: typ}}}
		var buf bytes.Buffer
		assert.NoError(t, schema.TypeScript(&buf, s, declared()...))
		assert.NoError(t, schema.AsyncAPI(&buf, s, declared()...))
		assert.NoError(t, schema.Go(&buf, s, declared()...), "it formats, so it parses")
	})
}
