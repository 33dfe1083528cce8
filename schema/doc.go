// Package schema writes the messages of a Manager down for its clients: as types of
// TypeScript, as an AsyncAPI 3.0 document, and as types of Go.
//
// It reads the types of the handlers (ws.Handle), events (ws.DefineEvent) and errors
// (ws.DefineError) that are registered, by reflection, and maps each type to its JSON as
// encoding/json writes it. Nothing is left to chance: a type whose JSON cannot be known, because
// it has a MarshalJSON of its own, is an error until it is declared with As.
//
// Golden is the usual way to use it: a test that keeps the generated file fresh.
//
//	func TestAPI(t *testing.T) {
//		m := newManager() // registers the handlers
//		schema.Golden(t, m, "web/api.gen.ts", schema.WithSource("."))
//	}
package schema
