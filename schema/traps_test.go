//nolint:lll,staticcheck,modernize // a case of a table is one line, and some tags are traps
package schema_test

import (
	"encoding"
	"encoding/json"
	"math"
	"math/big"
	"net/netip"
	"strings"
	"time"

	"github.com/qi-realtime/ws/schema"
)

// trap is a type that is easily mapped wrongly, with values. Immutable.
type trap struct {
	name   string
	want   string   // the TypeScript
	values []any    // of one type, the zero value first
	wrong  []string // literals that the compiler must reject
}

type (
	// Color is a color of the rainbow.
	Color string
	// Level is a number with names.
	Level int
	// Once has one constant, which is no list of all values.
	Once string
	// Grade has a MarshalText.
	Grade int
	// PointerGrade has a MarshalText with a pointer receiver.
	PointerGrade int
	// Money is declared.
	Money struct{ Cents int64 }
	// PointerMoney has a MarshalJSON with a pointer receiver.
	PointerMoney struct{ Cents int64 }
	// Letter is a byte with a method.
	Letter byte
	// Zeroer decides on omitzero by itself.
	Zeroer []int
	// UserID identifies a user.
	UserID int64

	// Tree is recursive.
	Tree struct {
		// Left comes first.
		Left  *Tree
		Nodes []Tree          `json:"nodes,omitempty"`
		Named map[string]Tree `json:",omitempty"`
	}
	// List is a recursive slice.
	List []List
	// Forest is a recursive map.
	Forest map[string]Forest

	Page[T any]               struct{ Items []T }
	Pair[K comparable, V any] struct {
		Key   K
		Value V
	}

	Base struct {
		ID   int
		Name string `json:"name"`
	}
	Other struct {
		ID    int
		Other bool
	}
	deep  struct{ Base }
	inner struct{ Inner int }
	word  string
	// Word is embedded and no struct.
	Word string
)

const (
	// Red is warm.
	Red   Color = "red"
	Green Color = "gr" + "een"
	Quote Color = `"*/`
	Same        = Red
	Fine  Once  = "fine"
)

const (
	Low Level = iota - 1
	// Middle is usual.
	Middle
	High
)

func (g Grade) MarshalText() ([]byte, error)         { return []byte{byte('A' + g)}, nil }
func (g *Grade) UnmarshalText(b []byte) error        { *g = Grade(b[0] - 'A'); return nil }
func (g *PointerGrade) MarshalText() ([]byte, error) { return []byte{byte('A' + *g)}, nil }
func (m Money) MarshalJSON() ([]byte, error) {
	return json.Marshal(big.NewRat(m.Cents, 100).FloatString(2))
}
func (m *PointerMoney) MarshalJSON() ([]byte, error) { return json.Marshal(m.Cents) }
func (l Letter) MarshalText() ([]byte, error)        { return []byte{'a' + byte(l)}, nil }
func (z Zeroer) IsZero() bool                        { return len(z) == 1 }

func declared() []schema.Option {
	return []schema.Option{schema.As[Money]("`${number}.${number}`"), schema.As[PointerMoney]("number")}
}

// options returns the options for tt: few traps need the sources, whose reading takes time.
func (tt *trap) options() []schema.Option {
	opts := declared()
	for _, sign := range []string{"enum", "Color", "Level", "Left"} {
		if strings.Contains(tt.name+tt.want, sign) {
			return append(opts, schema.WithSource("."))
		}
	}
	return opts
}

// optionTraps are about tags and nil.
var optionTraps = []trap{
	{
		"no options", "{\n  A: number;\n  B: string;\n  C: boolean;\n  D: number;\n}",
		[]any{struct {
			A int
			B string
			C bool
			D float32
		}{}},
		[]string{`{"A":1,"B":"","C":true}`, `{"A":"1","B":"","C":true,"D":1}`, `null`},
	},
	{
		"nil without omitempty is null", "{\n  P: number | null;\n  S: number[] | null;\n  M: { [key: string]: number } | null;\n}",
		[]any{struct {
			P *int
			S []int
			M map[string]int
		}{}, struct {
			P *int
			S []int
			M map[string]int
		}{new(1), []int{}, map[string]int{"a": 1}}},
		[]string{`{"S":[],"M":{}}`, `{"P":1,"S":null,"M":["a"]}`},
	},
	{
		"omitempty leaves nil out", "{\n  P?: number;\n  S?: number[];\n  M?: { [key: string]: number };\n  A?: unknown;\n  I?: number;\n}",
		[]any{struct {
			P *int           `json:",omitempty"`
			S []int          `json:",omitempty"`
			M map[string]int `json:",omitempty"`
			A any            `json:",omitempty"`
			I int            `json:",omitempty"`
		}{}, struct {
			P *int           `json:",omitempty"`
			S []int          `json:",omitempty"`
			M map[string]int `json:",omitempty"`
			A any            `json:",omitempty"`
			I int            `json:",omitempty"`
		}{new(0), []int{1}, map[string]int{"": 0}, (*int)(nil), 1}},
		[]string{`{"P":null}`, `{"S":null}`},
	},
	{
		"omitempty has no effect on structs and arrays", "{\n  /** RFC 3339. */\n  T: string;\n  S: {\n    A: number;\n  };\n  B: [number, number];\n  E?: [];\n}",
		[]any{struct {
			T time.Time           `json:",omitempty"`
			S struct{ A int }     `json:",omitempty"`
			B [2]int              `json:",omitempty"`
			E [0]map[string][]int `json:",omitempty"`
		}{}},
		[]string{`{"S":{"A":1},"B":[1,2]}`, `{"T":"","S":{"A":1},"B":[1]}`},
	},
	{
		"omitzero", "{\n  /** RFC 3339. */\n  T?: string;\n  S?: {\n    A: number;\n  };\n  L?: number[];\n  P?: number;\n  Z?: Zeroer | null;\n}",
		[]any{struct {
			T time.Time       `json:",omitzero"`
			S struct{ A int } `json:",omitzero"`
			L []int           `json:",omitzero"`
			P *int            `json:",omitzero"`
			Z Zeroer          `json:",omitzero"`
		}{Z: Zeroer{0}}, struct {
			T time.Time       `json:",omitzero"`
			S struct{ A int } `json:",omitzero"`
			L []int           `json:",omitzero"`
			P *int            `json:",omitzero"`
			Z Zeroer          `json:",omitzero"`
		}{time.Unix(1, 1).UTC(), struct{ A int }{1}, []int{}, new(0), nil}},
		[]string{`{"L":null}`, `{"P":null}`},
	},
	{
		"pointer to pointer with omitempty", "{\n  P?: number | null;\n}",
		[]any{
			struct {
				P **int `json:",omitempty"`
			}{}, struct {
				P **int `json:",omitempty"`
			}{new((*int)(nil))},
		},
		[]string{`{"P":""}`},
	},
	{
		"string option", "{\n  I: string;\n  P: string | null;\n  O?: string;\n  S: string;\n  B: string;\n  L: number[] | null;\n  G: Grade;\n  N: string;\n}",
		[]any{struct {
			I int64       `json:",string"`
			P *uint       `json:",string"`
			O *float64    `json:",omitempty,string"`
			S string      `json:",string"`
			B bool        `json:",string"`
			L []int       `json:",string"`
			G Grade       `json:",string"`
			N json.Number `json:",string"`
		}{}, struct {
			I int64       `json:",string"`
			P *uint       `json:",string"`
			O *float64    `json:",omitempty,string"`
			S string      `json:",string"`
			B bool        `json:",string"`
			L []int       `json:",string"`
			G Grade       `json:",string"`
			N json.Number `json:",string"`
		}{math.MaxInt64, new(uint(1)), new(1.5), "a\"b", true, []int{1}, 2, "1e3"}},
		[]string{`{"I":1,"P":null,"S":"","B":"true","L":null,"G":"A","N":"1"}`},
	},
	{
		"names of tags", "{\n  $a_1: number;\n  \"b-c\": number;\n  \"-\": number;\n  \"ö\": number;\n  Bad: number;\n  \"1\": number;\n  \"a b<>&\": number;\n}",
		[]any{struct {
			A          int `json:"$a_1"`
			B          int `json:"b-c"`
			Minus      int `json:"-,"`
			Hidden     int `json:"-"`
			O          int `json:"ö"`
			Bad        int `json:"no\"quote"`
			One        int `json:"1"`
			Spaces     int `json:"a b<>&"`
			unexported int
		}{unexported: 1}},
		[]string{`{"$a_1":1}`},
	},
}

// valueTraps are about types of values.
var valueTraps = []trap{
	{"wide integers", "{\n  /** " + wide + " */\n  I: number;\n  /** " + wide + " */\n  U: number[] | null;\n}", []any{struct {
		I int64
		U []uint64
	}{}, struct {
		I int64
		U []uint64
	}{math.MinInt64, []uint64{math.MaxUint64}}}, []string{`{"I":"1","U":null}`}},
	{"bytes", "string | null", []any{[]byte(nil), []byte{}, []byte("\xff\x00?")}, []string{`[1]`}},
	{"array of bytes", "[number, number, number]", []any{[3]byte{}, [3]byte{1, 2, 255}}, []string{`"AAAA"`, `[1,2]`}},
	{"long array", "number[]", []any{[9]byte{}}, []string{`""`}},
	{"slice of bytes with methods", "Letter[] | null", []any{[]Letter(nil), []Letter{1, 2}}, []string{`[1]`}},
	{"time", "string", []any{time.Time{}, time.Now()}, []string{`1`}},
	{"duration", "number", []any{time.Duration(0), time.Hour}, []string{`"1h"`}},
	{"json.Number", "number", []any{json.Number(""), json.Number("1e400")}, []string{`"1"`}},
	{"json.RawMessage", "unknown", []any{json.RawMessage(nil), json.RawMessage(`{"a":[]}`)}, nil},
	{"any", "unknown[] | null", []any{[]any(nil), []any{nil, 1, "a", []any{}}}, []string{`1`}},
	{"interface with MarshalText", "(string | null)[] | null", []any{
		[]encoding.TextMarshaler(nil), []encoding.TextMarshaler{nil, Grade(1)},
	}, []string{`[1]`}},
	{"int keys", "{ [key: number]: string } | null", []any{map[int8]string(nil), map[int8]string{-128: "a", 1: "b"}}, []string{`{"a":"b"}`, `{"1":1}`}},
	{"wide keys", "{ [key: string]: UserID } | null", []any{map[UserID]UserID(nil), map[UserID]UserID{math.MinInt64: 1}}, []string{`{"1":"b"}`}},
	{"text keys", "{ [key: string]: boolean } | null", []any{map[Grade]bool(nil), map[Grade]bool{0: true}, map[Grade]bool{1: false}}, []string{`{"A":1}`}},
	{"address", "string", []any{netip.Addr{}, netip.MustParseAddr("::1")}, []string{`1`}},
	{"big.Int", "number | null", []any{(*big.Int)(nil), big.NewInt(7), new(big.Int).Lsh(big.NewInt(1), 99)}, []string{`"7"`}},
	{"declared", "(`${number}.${number}`)", []any{Money{}, Money{1999}}, []string{`"a"`, `1`}},
	{"declared, list", "Money[] | null", []any{[]Money(nil), []Money{{1}}}, []string{`["a"]`}},
	{"pointer receiver", "{\n  P: PointerMoney | null;\n  S: PointerMoney[] | null;\n  G?: PointerGrade[];\n}", []any{
		struct {
			P *PointerMoney
			S []PointerMoney
			G []PointerGrade `json:",omitempty"`
		}{}, struct {
			P *PointerMoney
			S []PointerMoney
			G []PointerGrade `json:",omitempty"`
		}{&PointerMoney{1}, []PointerMoney{{2}}, []PointerGrade{1}},
	}, []string{`{"P":null,"S":[null]}`}},
	{"string enum", `"red" | "green" | "\"*/"`, []any{Red, Green, Quote}, []string{`"blue"`, `1`}},
	{"number enum", `-1 | 0 | 1`, []any{Middle, Low, High}, []string{`2`, `"0"`}},
	{"keys of an enum", "{ [key in Color]?: number } | null", []any{map[Color]int(nil), map[Color]int{Red: 1}}, []string{`{"blue":1}`}},
	{"keys of a number enum", "{ [key in Level]?: number } | null", []any{map[Level]int(nil), map[Level]int{Low: 1}}, []string{`{"7":1}`}},
	{"one constant is no enum", "string", []any{Once(""), Fine}, []string{`1`}},
	{"named number", "number", []any{UserID(0)}, []string{`"1"`}},
}

const wide = "An integer of 64 bits: JavaScript reads it exactly up to 2^53 only."

// structTraps are about structs within structs, names, and recursion.
var structTraps = []trap{
	{"embedded", "{\n  ID: number;\n  name: string;\n  X: number;\n}", []any{struct {
		Base
		X int
	}{}}, []string{`{"Base":{"ID":1,"name":""},"X":1}`}},
	{"embedded with a tag", "{\n  base: Base;\n}", []any{struct {
		Base `json:"base"`
	}{}}, []string{`{"ID":1,"name":""}`}},
	{"embedded pointer", "{\n  ID?: number;\n  name?: string;\n  X: number;\n}", []any{struct {
		*Base
		X int
	}{}, struct {
		*Base
		X int
	}{&Base{}, 1}}, []string{`{"ID":null,"X":1}`}},
	{"embedded pointer with a tag", "{\n  base: Base | null;\n}", []any{struct {
		*Base `json:"base"`
	}{}}, []string{`{}`}},
	{"shadowing", "{\n  name: string;\n  ID: string;\n}", []any{struct {
		Base
		ID string
	}{}}, []string{`{"ID":1,"name":""}`}},
	{"two of a level exclude each other", "{\n  name: string;\n  Other: boolean;\n}", []any{struct {
		Base
		Other
	}{}}, []string{`{"ID":1,"name":"","Other":true}`}},
	{"a tag wins on a level", "{\n  name: string;\n  ID: string;\n}", []any{struct {
		deep
		inner `json:"-"`
		Other struct {
			X int
		} `json:"-"`
		Named struct{} `json:"-"`
		Text  string   `json:"ID"`
	}{}}, nil},
	{"embedded without being exported", "{\n  ID: number;\n  name: string;\n  Inner: number;\n}", []any{struct {
		deep
		inner
		word
	}{}}, nil},
	{"embedded and no struct", "{\n  Word: Word;\n}", []any{struct{ Word }{}}, []string{`{"Word":1}`}},
	{"embedded interface", "{\n  Stringer: unknown;\n}", []any{struct{ Stringer }{}}, []string{`{}`}},
	{"recursive struct", "{\n  /** Left comes first. */\n  Left: Tree | null;\n  nodes?: Tree[];\n  Named?: { [key: string]: Tree };\n}", []any{
		Tree{}, Tree{&Tree{}, []Tree{{}, {}}, map[string]Tree{"a": {}}},
	}, []string{`{}`, `{"Left":{}}`}},
	{"recursive slice", "(List | null)[] | null", []any{List(nil), List{nil, {}, {{}}}}, []string{`[1]`}},
	{"recursive map", "{ [key: string]: Forest | null } | null", []any{Forest(nil), Forest{"a": {"b": nil}}}, []string{`{"a":1}`}},
	{"generic", "{\n  Items: Base[] | null;\n}", []any{Page[Base]{}, Page[Base]{[]Base{{}}}}, []string{`{"Items":[1]}`}},
	{"generic in generic", "{\n  Key: string;\n  Value: PageOfMapOfStringToColorList | null;\n}", []any{
		Pair[string, *Page[map[string][]Color]]{},
		Pair[string, *Page[map[string][]Color]]{"a", &Page[map[string][]Color]{[]map[string][]Color{{"b": {Red}}}}},
	}, []string{`{"Key":1,"Value":null}`}},
	{"empty struct", "{}", []any{struct{}{}}, nil},
	{"nested", "{\n  A: {\n    B: ({\n      C: number;\n    })[] | null;\n  } | null;\n}", []any{struct {
		A *struct{ B []struct{ C int } }
	}{}, struct {
		A *struct{ B []struct{ C int } }
	}{&struct{ B []struct{ C int } }{[]struct{ C int }{{1}}}}}, []string{`{"A":{"B":[{}]}}`}},
}

// Stringer is an interface.
type Stringer interface{ String() string }

func allTraps() []trap {
	var all []trap
	for _, traps := range [][]trap{optionTraps, valueTraps, structTraps} {
		all = append(all, traps...)
	}
	return all
}
