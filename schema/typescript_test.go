package schema_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/schema"
)

// TestTraps asserts the type of each trap, and that the JSON which encoding/json makes of its
// values is of this type.
func TestTraps(t *testing.T) {
	for _, tt := range allTraps() {
		t.Run(tt.name, func(t *testing.T) {
			typ, opts := reflect.TypeOf(tt.values[0]), tt.options()
			text, err := schema.TypeText(typ, opts...)
			require.NoError(t, err)
			assert.Equal(t, tt.want, text)
			for i, v := range tt.values {
				require.Equal(t, typ, reflect.TypeOf(v))
				data, err := json.Marshal(v)
				require.NoError(t, err)
				assert.NoError(t, schema.Check(typ, data, opts...), "%s", data)
				if i == 0 {
					assert.NoError(t, schema.CheckZero(typ, data, opts...), "%s", data)
				}
			}
		})
	}
}
