package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/schema"
)

// compiler returns the path of tsc, the compiler of TypeScript: $TSC, which CI sets. Without it
// the test is skipped, but not in CI.
func compiler(t *testing.T) string {
	path := os.Getenv("TSC")
	if path == "" && os.Getenv("CI") == "" {
		t.Skip("TSC is not set: npm install in interop/browser, and set it to node_modules/.bin/tsc there")
	}
	require.FileExists(t, path, "$TSC")
	return path
}

// compile runs tsc --strict on files, given by their names.
func compile(t *testing.T, files map[string]string) {
	t.Helper()
	tsc, dir := compiler(t), t.TempDir()
	args := []string{
		"--strict", "--noEmit", "--noUnusedLocals", "--noFallthroughCasesInSwitch", "--exactOptionalPropertyTypes",
		"--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--types", "",
	}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		args = append(args, name)
	}
	command := exec.CommandContext(t.Context(), tsc, args...)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err != nil {
		for _, text := range files {
			t.Log(text)
		}
	}
	require.NoError(t, err, "%s", output)
}

// TestTSCTraps compiles the types of all traps and of random types with tsc --strict, with the JSON of
// their values as literals, and with literals that the compiler must reject.
func TestTSCTraps(t *testing.T) {
	var s ws.Schema
	var uses strings.Builder
	uses.WriteString("import type { API } from \"./api.gen\";\ntype E = API[\"events\"];\n")
	add := func(values []any, wrong []string) {
		event := fmt.Sprintf("case.%d", len(s.Events))
		s.Events = append(s.Events, ws.EventInfo{Event: event, Data: reflect.TypeOf(values[0])})
		n := 0
		assign := func(literal string) {
			fmt.Fprintf(&uses, "export const c%d_%d: E[%q] = %s;\n", len(s.Events)-1, n, event, literal)
			n++
		}
		for _, v := range values {
			data, err := json.Marshal(v)
			require.NoError(t, err)
			assign(string(data))
		}
		for _, literal := range wrong {
			uses.WriteString("// @ts-expect-error\n")
			assign(literal)
		}
	}
	for _, tt := range allTraps() {
		add(tt.values, tt.wrong)
	}
	for seed := range uint64(200) {
		_, values := randomType(seed)
		add(values, nil)
	}
	var api bytes.Buffer
	require.NoError(t, schema.TypeScript(&api, s, append(declared(), schema.WithSource("."))...))
	compile(t, map[string]string{"api.gen.ts": api.String(), "uses.ts": uses.String()})
}

// TestTSCAPI compiles a use of a whole API, and uses that must be rejected.
func TestTSCAPI(t *testing.T) {
	var api bytes.Buffer
	require.NoError(t, schema.TypeScript(&api, ws.Describe(newShop(t)), schema.WithSource(".")))
	compile(t, map[string]string{"api.gen.ts": api.String(), "uses.ts": `import type { API } from "./api.gen";
declare function request<K extends keyof API["requests"]>(
  name: K,
  ...data: undefined extends API["requests"][K]["req"] ? [] : [API["requests"][K]["req"]]
): API["requests"][K]["resp"];
declare function on<K extends keyof API["events"]>(name: K, fn: (data: API["events"][K]) => void): void;

export const order: string = request("shop.order", { item: "tea", count: 2, state: "open" }).id;
export const none: undefined = request("shop.cancel", { id: "1" });
export const stock = request("shop.stock").Items?.map(item => item.price + 1);
on("shop.sold", sold => sold.item.toUpperCase() + (sold.by ?? "nobody"));
export const code: 4290 = null! as API["errors"]["tooFast"];
// @ts-expect-error
request("shop.unknown");
// @ts-expect-error
request("shop.order", { item: "tea", count: "2", state: "open" });
// @ts-expect-error
request("shop.order", { item: "tea", count: 2, state: "lost" });
// @ts-expect-error
request("shop.order");
// @ts-expect-error
on("shop.sold", sold => sold.price);
`})
}
