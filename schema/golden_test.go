//nolint:lll // a case of a table is one line
package schema_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

var writers = []func(io.Writer, ws.Schema, ...schema.Option) error{schema.TypeScript, schema.AsyncAPI, schema.Go}

// TestGolden holds the description of a whole API to the files in testdata.
func TestGolden(t *testing.T) {
	m := newShop(t)
	for _, name := range []string{"shop.gen.ts", "shop.gen.json"} {
		schema.Golden(t, m, filepath.Join("testdata", name), schema.WithSource("."), schema.Title("Shop", "1.2.0"))
	}
}

func TestGoldenErrors(t *testing.T) {
	s := ws.Describe(newShop(t))
	path := filepath.Join(t.TempDir(), "new", "api.ts")
	assert.ErrorContains(t, schema.WriteGolden(s, path, false, nil), "run the test with -update to write it")
	require.NoError(t, schema.WriteGolden(s, path, true, nil))
	require.NoError(t, schema.WriteGolden(s, path, false, nil))

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	windows := strings.ReplaceAll(string(text), "\n", "\r\n")
	require.NoError(t, os.WriteFile(path, []byte(windows), 0o600))
	assert.NoError(t, schema.WriteGolden(s, path, false, nil), "line ends of Windows")

	stale := strings.Replace(string(text), "4290", "4291", 1)
	require.NoError(t, os.WriteFile(path, []byte(stale), 0o600))
	err = schema.WriteGolden(s, path, false, nil)
	assert.ErrorContains(t, err, `is "    tooFast: 4291;", not "    tooFast: 4290;"; run the test with -update to write it`)
	require.NoError(t, os.WriteFile(path, text[:len(text)-20], 0o600))
	assert.Error(t, schema.WriteGolden(s, path, false, nil), "cut")

	assert.ErrorContains(t, schema.WriteGolden(s, "api.txt", true, nil), "the name must end in .ts, .json or .go")
	s.Events = append(s.Events, ws.EventInfo{Event: "e", Data: nil})
	assert.NoError(t, schema.WriteGolden(s, path, true, nil), "an event without data")
}
