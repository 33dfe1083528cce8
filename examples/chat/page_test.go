package main

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/schema"
)

// TestAPI holds the types of the page to the handlers and events of the server.
func TestAPI(t *testing.T) {
	c, err := newChat(options{history: 1})
	require.NoError(t, err)
	schema.Golden(t, c.m, "web/src/api.gen.ts", schema.WithSource("."))
}

// The page gives the limits of the server to the browser.
func TestLimitsOfThePage(t *testing.T) {
	page := read(t, "web/src/index.html")
	assert.Contains(t, page, `<textarea id="text" dir="auto" rows="1" maxlength="`+strconv.Itoa(maxText)+`"`)
	for _, field := range []string{"name", "room"} {
		assert.Contains(t, page, `<input id="`+field+`" dir="auto" maxlength="`+strconv.Itoa(maxName)+`"`)
	}
}

// TestSizeOfThePage holds the page to the size that README.md states.
func TestSizeOfThePage(t *testing.T) {
	stated := regexp.MustCompile(`less than ([0-9.]+) KB`).FindStringSubmatch(read(t, "README.md"))
	require.NotNil(t, stated)
	limit, err := strconv.ParseFloat(stated[1], 64)
	require.NoError(t, err)
	var sum float64
	files, err := fs.Glob(static, "static/*")
	require.NoError(t, err)
	for _, name := range files {
		content, err := static.ReadFile(name)
		require.NoError(t, err)
		var compressed bytes.Buffer
		w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
		require.NoError(t, err)
		_, err = w.Write(content)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		t.Logf("%s: %d bytes, %d with gzip", name, len(content), compressed.Len())
		sum += float64(compressed.Len()) / 1000
	}
	t.Logf("together %.2f KB with gzip", sum)
	assert.Less(t, sum, limit)
	assert.Greater(t, sum, limit-1, "README.md states more than needed")
}

// meetings are colors of style.css that meet, with the least contrast by WCAG 2.2 AA: 4.5 for
// text, 3 for the edges of controls and the signs of states.
var meetings = []struct {
	ratio  float64
	fronts string
	backs  string
}{
	{4.5, "ink ink-2 bad", "panel side"},
	{4.5, "ink ink-2", "bubble"},
	{4.5, "ink", "line"},
	{4.5, "ink bad", "wash"},
	{4.5, "on-accent on-accent-2", "accent"},
	{4.5, "on-disc", "c0 c1 c2 c3 c4 c5 c6 c7"},
	{3, "edge", "panel side"},
	{3, "focus", "panel side bubble"},
	{3, "good wait bad accent", "panel"},
}

func TestContrast(t *testing.T) {
	css := read(t, "web/src/style.css")
	light, dark, ok := strings.Cut(css, "@media (prefers-color-scheme: dark)")
	require.True(t, ok)
	for name, part := range map[string]string{"light": light, "dark": dark} {
		colors := make(map[string]float64)
		for _, c := range regexp.MustCompile(`--([a-z0-9-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(part, -1) {
			colors[c[1]] = luminance(t, c[2])
		}
		for _, m := range meetings {
			for front := range strings.FieldsSeq(m.fronts) {
				for back := range strings.FieldsSeq(m.backs) {
					require.Contains(t, colors, front)
					require.Contains(t, colors, back)
					a, b := colors[front], colors[back]
					ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05)
					assert.GreaterOrEqual(t, ratio, m.ratio, "%s: %s on %s", name, front, back)
				}
			}
		}
	}
}

// luminance is the relative luminance of WCAG.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	rgb, err := strconv.ParseUint(hex, 16, 24)
	require.NoError(t, err)
	linear := func(shift int) float64 {
		v := float64(rgb>>shift&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(16) + 0.7152*linear(8) + 0.0722*linear(0)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
