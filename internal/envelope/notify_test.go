package envelope_test

import (
	"encoding/json"
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
			} else {
				require.Zero(t, place)
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
