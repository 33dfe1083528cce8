package envelope_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/envelope"
)

func TestNotify(t *testing.T) {
	type message struct {
		Type, Event, Room string
		Offset            *uint64
		Data              json.RawMessage
		Timestamp         int64
	}
	for _, tt := range []struct {
		name   string
		notify envelope.Notify
		offset uint64
	}{
		{"plain", envelope.Notify{Event: "e"}, 0},
		{"room", envelope.Notify{Event: "a\"b<é", Room: "r\n1", Data: []byte(`{"a":1}`)}, 0},
		{"first offset", envelope.Notify{Event: "e", Room: "r", Offset: true}, 1},
		{"greatest offset", envelope.Notify{Event: "e", Room: "r", Offset: true, Data: []byte(`[]`)}, 1<<53 - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, place := tt.notify.Append([]byte("before"))
			if tt.notify.Offset {
				copy(b[len(b)-place:], envelope.AppendOffset(nil, tt.offset))
			}
			var got message
			require.NoError(t, json.Unmarshal(b[len("before"):], &got))
			assert.Equal(t, []string{"notify", tt.notify.Event, tt.notify.Room}, []string{got.Type, got.Event, got.Room})
			assert.Equal(t, string(tt.notify.Data), string(got.Data))
			assert.NotZero(t, got.Timestamp)
			if tt.notify.Offset {
				assert.Equal(t, tt.offset, *got.Offset)
			} else {
				assert.Nil(t, got.Offset)
			}
		})
	}
}

// A message of a store has the fields of the same message without an offset, and its offsets.
func TestAppendStored(t *testing.T) {
	texts := []string{"e", "a\"b<é", `\`, `","`, "\u2028\n", `,"offset":1,`}
	for i, event := range texts {
		for _, data := range []string{"", `{"a":1}`, `[{"offset":7,"prev":3}]`, `"` + `,\"` + `"`, "1e5"} {
			n := envelope.Notify{Event: event, Room: texts[len(texts)-1-i], Data: []byte(data)}
			plain, place := n.Append(nil)
			for _, at := range []struct{ offset, prev uint64 }{{1, 0}, {7, 6}, {7, 0}, {7, 5}, {1<<53 - 1, 1}} {
				b, ok := envelope.AppendStored([]byte("before"), plain, place, at.offset, at.prev)
				require.True(t, ok)
				require.Equal(t, "before", string(b[:6]))
				var want, got map[string]json.RawMessage
				require.NoError(t, json.Unmarshal(plain, &want))
				require.NoError(t, json.Unmarshal(b[6:], &got))
				want["offset"] = fmt.Append(nil, at.offset)
				if at.prev != at.offset-1 {
					want["prev"] = fmt.Append(nil, at.prev)
				}
				require.Equal(t, want, got)
			}
		}
	}
}

// Another node may name any place.
func TestAppendStoredAtAnyPlace(t *testing.T) {
	n := envelope.Notify{Event: "e", Room: "r", Data: []byte(`"x"`)}
	plain, _ := n.Append(nil)
	places := 0
	for place := -3; place < len(plain)+3; place++ {
		b, ok := envelope.AppendStored(nil, plain, place, 9, 4)
		require.Equal(t, ok, json.Valid(b), "place %d: %s", place, b)
		if ok {
			places++
		}
	}
	require.Equal(t, 4, places, "before each field but the first")
	_, ok := envelope.AppendStored(nil, nil, 0, 9, 4)
	require.False(t, ok)
}
